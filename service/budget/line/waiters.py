"""Requests that wait on one replica for blocks of one app: how they enter, leave, and are refused or served."""

from collections.abc import Callable, Iterator

from service.budget.line.jobs import Fetched, TooLong
from service.budget.line.queue import BlockState, Queue, QueuedBlock, Waiter
from service.model.blocks import CachedBlock
from service.model.origin import NOBODY, Payer


class Waiters:
    """All waiting requests and their places. Loop time, in seconds.

    `estimate` returns the expected wait from now for a caller's turn, given its name, its weight, the place in its own
    line, and whether it is in the background. `changed` is called after places are given up.
    """

    def __init__(self, *, estimate: Callable[[str, float, int, bool], float], changed: Callable[[], None]) -> None:
        self.queue = Queue()
        self._estimate = estimate
        self._changed = changed

    def enter(self, waiter: Waiter) -> QueuedBlock:
        """Queue a request; all requests of one caller for one block share a place."""
        block = self.queue.blocks.get(waiter.job.block_key) or QueuedBlock(waiter.job)
        block.waiters[waiter] = None
        self.queue.enter(block, waiter)
        return block

    def leave(self, block: QueuedBlock, waiter: Waiter) -> None:
        """Remove a request; the caller's place goes with its last request for the block."""
        block.waiters.pop(waiter, None)
        if waiter.caller in block.places and all(other.caller != waiter.caller for other in block.waiters):
            if block.counts_for(waiter.caller):
                self._changed()
            self.queue.leave(block, waiter.caller)

    def begin_call(self, block: QueuedBlock, caller: str, *, now_s: float) -> Payer:
        """Record that a call for the block begins in the caller's turn, and return its payer."""
        block.called_at_s = now_s
        first = next((waiter for waiter in block.waiters if waiter.caller == caller), None)
        if first is None:
            return Payer(caller=caller, origin=NOBODY, waited_s=0.0)
        if first.origin.cost is not None:
            first.origin.cost.calls += 1
        return Payer(caller=caller, origin=first.origin, waited_s=max(now_s - first.entered_s, 0.0))

    def end_call(self, block: QueuedBlock, *, now_s: float) -> None:
        """Record that the call for the block has ended."""
        for waiter in block.waiters:
            waiter.called_s += _call_s(block, waiter, now_s=now_s)
        block.called_at_s = None

    def charge(self, block: QueuedBlock, waiter: Waiter, *, now_s: float) -> None:
        """Add the cost of a request's wait for the block so far to its origin's cost."""
        cost = waiter.origin.cost
        if cost is not None:
            called_s = waiter.called_s + _call_s(block, waiter, now_s=now_s)
            cost.upstream_s += called_s
            cost.waited_s += max(now_s - waiter.entered_s - called_s, 0.0)

    def expire(self, block: QueuedBlock, waiter: Waiter) -> None:
        """Refuse a request whose patience ended before it got a turn; a call under way is awaited."""
        if block.state is BlockState.WAITING:
            self._refuse(block, waiter)

    def judge(self, block: QueuedBlock, waiter: Waiter, *, now_s: float) -> None:
        """Refuse a request if its estimated turn comes after its patience ends."""
        if block.state is not BlockState.WAITING:
            return
        waiter.judged = True
        place = self.queue.position(block, waiter.caller)
        estimate_s = self._estimate(waiter.caller, waiter.weight, place, waiter.background)
        if now_s + estimate_s > waiter.deadline_s:
            self._refuse(block, waiter)

    def judge_all(self, *, now_s: float, again: bool) -> None:
        """Estimate the wait of requests that have no estimate yet, or of all of them with `again`."""
        for block, waiter in tuple(self._all()):
            if again or not waiter.judged:
                self.judge(block, waiter, now_s=now_s)

    def wait_again(self, block: QueuedBlock, *, now_s: float, error: Exception | None = None) -> None:
        """Return a block to its old places in line; refuse requests whose patience has ended meanwhile.

        If a call has failed with `error`, those requests get that error, since they have had a turn.
        """
        block.state = BlockState.WAITING
        block.turned_for = None
        for waiter in tuple(block.waiters):
            if waiter.deadline_s <= now_s:
                if error is None:
                    self._refuse(block, waiter)
                elif not waiter.future.done():
                    waiter.future.set_exception(error)

    def serve(self, block: QueuedBlock, value: CachedBlock, *, payer: str) -> None:
        """Give a fetched block to all waiting requests. The payer's first request has fetched it; all others joined."""
        unpaid = True
        for waiter in tuple(block.waiters):
            if not waiter.future.done():
                paid = unpaid and payer == waiter.caller
                unpaid = unpaid and not paid
                waiter.future.set_result(Fetched(value=value, joined=not paid))
        self.queue.close(block)

    def serve_found(self, block: QueuedBlock, found: CachedBlock) -> None:
        """Give a block found in Redis to the requests that it answers; the others keep waiting."""
        for waiter in tuple(block.waiters):
            if not waiter.future.done() and waiter.job.accepts(found):
                waiter.future.set_result(Fetched(value=found, joined=True))
                self.leave(block, waiter)

    def fail(self, block: QueuedBlock, error: Exception) -> None:
        """Fail all requests that wait for the block."""
        for waiter in tuple(block.waiters):
            if not waiter.future.done():
                waiter.future.set_exception(error)
        self.queue.close(block)

    def fail_waiting(self, error: Exception) -> None:
        """Fail all waiting requests, except those for which this replica has a call in progress."""
        for block in tuple(self.queue.blocks.values()):
            if block.state not in (BlockState.BEGINNING, BlockState.CALLING):
                self.fail(block, error)

    def has_unjudged(self) -> bool:
        """Return whether any request in line has no estimate yet."""
        return any(not waiter.judged and block.state is BlockState.WAITING for block, waiter in self._all())

    def _refuse(self, block: QueuedBlock, waiter: Waiter) -> None:
        if not waiter.future.done():
            place = self.queue.position(block, waiter.caller)
            estimate_s = self._estimate(waiter.caller, waiter.weight, place, waiter.background)
            waiter.future.set_result(TooLong(place=place, estimate_s=estimate_s))

    def _all(self) -> Iterator[tuple[QueuedBlock, Waiter]]:
        for block in self.queue.blocks.values():
            for waiter in block.waiters:
                yield block, waiter


def _call_s(block: QueuedBlock, waiter: Waiter, *, now_s: float) -> float:
    """Return how long the request has waited for the call in progress."""
    return 0.0 if block.called_at_s is None else now_s - max(block.called_at_s, waiter.entered_s)
