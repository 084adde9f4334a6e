"""The requests that wait on one replica for blocks of one app: entering, leaving, being refused, being served."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from service.budget.line.jobs import Fetched, Job, Payer, TooLong
from service.budget.line.queue import BlockState, Queue, QueuedBlock
from service.model.origin import NOBODY, Origin

T = TypeVar("T")


class Estimate(Protocol):
    """Estimates waits."""

    def __call__(self, caller: str, weight: float, place: int, *, background: bool) -> float:
        """Return the expected wait in seconds from now."""
        ...


class Waiter(Generic[T]):
    """One request that waits for one block."""

    __slots__ = ("background", "caller", "deadline_s", "entered_s", "future", "judged", "origin", "weight")

    def __init__(
        self,
        *,
        caller: str,
        weight: float,
        entered_s: float,
        patience_s: float,
        origin: Origin = NOBODY,
        background: bool = False,
    ) -> None:
        self.background = background
        self.caller = caller
        self.origin = origin
        self.weight = weight
        self.entered_s = entered_s
        self.deadline_s = entered_s + patience_s
        self.judged = False
        self.future: asyncio.Future[Fetched[T] | TooLong] = asyncio.get_running_loop().create_future()


class BlockWaiters(Generic[T]):
    """What is known of a wanted block beside its places: its newest job, and who waits."""

    __slots__ = ("job", "waiters")

    def __init__(self, job: Job[T]) -> None:
        self.job = job
        self.waiters: dict[Waiter[T], None] = {}


class Waiters(Generic[T]):
    """All waiting requests and their places. `changed` is called when places were given up. Loop time, in seconds."""

    def __init__(self, *, estimate: Estimate, changed: Callable[[], None]) -> None:
        self.places: Queue[BlockWaiters[T]] = Queue()
        self._estimate = estimate
        self._changed = changed

    def enter(self, job: Job[T], waiter: Waiter[T]) -> QueuedBlock[BlockWaiters[T]]:
        """Let a request wait; all requests of one caller for one block share a place."""
        want = self.places.wants.get(job.block_key) or QueuedBlock(job.block_key, BlockWaiters(job))
        want.payload.job = job
        want.payload.waiters[waiter] = None
        self.places.enter(
            want,
            caller=waiter.caller,
            weight=waiter.weight,
            now_s=waiter.entered_s,
            background=waiter.background,
        )
        return want

    def leave(self, want: QueuedBlock[BlockWaiters[T]], waiter: Waiter[T]) -> None:
        """Let a request go; with the last one of its caller goes the place."""
        waiters = want.payload.waiters
        waiters.pop(waiter, None)
        if waiter.caller in want.places and all(other.caller != waiter.caller for other in waiters):
            if want.counts_for(waiter.caller):
                self._changed()
            self.places.leave(want, waiter.caller)

    def payer(self, want: QueuedBlock[BlockWaiters[T]], caller: str, *, now_s: float) -> Payer:
        """Who pays for a call that is made in the caller's turn."""
        first = next((waiter for waiter in want.payload.waiters if waiter.caller == caller), None)
        if first is None:
            return Payer(caller=caller, origin=NOBODY, waited_s=0.0)
        return Payer(caller=caller, origin=first.origin, waited_s=max(now_s - first.entered_s, 0.0))

    def expire(self, want: QueuedBlock[BlockWaiters[T]], waiter: Waiter[T]) -> None:
        """Refuse a request whose patience has ended before a turn came; a call under way is waited for."""
        if want.state is BlockState.WAITING:
            self._refuse(want, waiter)

    def judge(self, want: QueuedBlock[BlockWaiters[T]], waiter: Waiter[T], *, now_s: float) -> None:
        """Refuse a request whose turn will come too late, as far as is known now."""
        waiter.judged = True
        if want.state is not BlockState.WAITING:
            return
        place = self.places.position(want, waiter.caller)
        estimate_s = self._estimate(waiter.caller, waiter.weight, place, background=waiter.background)
        if now_s + estimate_s > waiter.deadline_s:
            self._refuse(want, waiter)

    def judge_all(self, *, now_s: float, again: bool) -> None:
        """Judge those who have not been judged yet, or `again` all of them."""
        for want, waiter in tuple(self._all()):
            if again or not waiter.judged:
                self.judge(want, waiter, now_s=now_s)

    def wait_again(self, want: QueuedBlock[BlockWaiters[T]], *, now_s: float) -> None:
        """Put a block back in line, in its old places; whose patience has ended meanwhile is refused."""
        want.state = BlockState.WAITING
        want.turned_for = None
        for waiter in tuple(want.payload.waiters):
            if waiter.deadline_s <= now_s:
                self._refuse(want, waiter)

    def serve(
        self, want: QueuedBlock[BlockWaiters[T]], value: T, *, begun_s: float, upstream_s: float, payer: str | None
    ) -> None:
        """Give the block to all who wait for it. The payer's first request has fetched it, all others have joined."""
        for waiter in tuple(want.payload.waiters):
            if not waiter.future.done():
                paid = payer == waiter.caller
                payer = None if paid else payer
                waited_s = max(begun_s - waiter.entered_s, 0.0)
                fetched = Fetched(value=value, waited_s=waited_s, upstream_s=upstream_s, joined=not paid)
                waiter.future.set_result(fetched)
        self.places.close(want)

    def fail(self, want: QueuedBlock[BlockWaiters[T]], error: Exception) -> None:
        """Tell all who wait for the block that it won't come."""
        for waiter in tuple(want.payload.waiters):
            if not waiter.future.done():
                waiter.future.set_exception(error)
        self.places.close(want)

    def fail_waiting(self, error: Exception) -> None:
        """Tell all who wait, save for a call of this replica that is under way, that nothing will come."""
        for want in tuple(self.places.wants.values()):
            if want.state not in (BlockState.BEGINNING, BlockState.CALLING):
                self.fail(want, error)

    def has_unjudged(self) -> bool:
        """Whether some request has not been judged by its expected wait."""
        return any(not waiter.judged for _, waiter in self._all())

    def _refuse(self, want: QueuedBlock[BlockWaiters[T]], waiter: Waiter[T]) -> None:
        if not waiter.future.done():
            place = self.places.position(want, waiter.caller)
            estimate_s = self._estimate(waiter.caller, waiter.weight, place, background=waiter.background)
            waiter.future.set_result(TooLong(place=place, estimate_s=estimate_s))

    def _all(self) -> Iterator[tuple[QueuedBlock[BlockWaiters[T]], Waiter[T]]]:
        for want in self.places.wants.values():
            for waiter in want.payload.waiters:
                yield want, waiter
