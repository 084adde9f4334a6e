"""Turns in use on one replica. Each runs from `begin` to `done` in its own task, which is never cancelled."""

import asyncio
import itertools
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

import structlog

from service.budget.line.jobs import CallFailed
from service.budget.line.queue import BlockState, QueuedBlock
from service.budget.line.waiters import Waiters
from service.budget.scheduler.interfaces import (
    FIRST_WISH,
    AlreadyStored,
    Beginning,
    Begun,
    Joined,
    Lapsed,
    Paused,
    Scheduler,
    Turn,
    Wish,
)
from service.budget.scheduler.rules import Rules
from service.model.errors import ShuttingDown, StoreUnavailable, UpstreamUnreachable
from service.model.origin import Payer

log = structlog.get_logger()

LOOK_S = 1.0
"""How often to look for a block that another replica is fetching, in case its message was lost."""
DONE_TRIES = 5
"""How often to try to report the end of a fetch; after that, its leases expire."""
DONE_AGAIN_S = 0.1
"""The delay before the second try; doubles with each further one."""
TIMER_MS = 1
"""How early an event loop may wake: uvloop counts whole milliseconds."""
TURN_ENDS = ("used", "joined", "known", "paused", "lapsed", "returned", "lost")
"""How a turn ends: used for a call; refunded because the block was being fetched or already stored, or the upstream had
requested a pause; lapsed; given back unused; lost with an answer from Redis."""
END_OF: Mapping[type[Beginning], str] = {
    Begun: "used",
    Joined: "joined",
    AlreadyStored: "known",
    Paused: "paused",
    Lapsed: "lapsed",
}
"""How a turn ends, by the answer to `begin`."""


class Turns:
    """Uses the turns that the scheduler gives, and looks for blocks that other replicas fetch.

    `returned` holds turns to give back with the next tick, which `tick_soon` requests. `ends` counts turns by caller
    and TURN_ENDS. `used` is called once with the caller of each turn that becomes a call.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        waiters: Waiters,
        *,
        app: str,
        rules: Rules,
        tick_soon: Callable[[], None],
        used: Callable[[str], None],
    ) -> None:
        self.returned: list[int] = []
        self.ends: Counter[tuple[str, str]] = Counter()
        self._scheduler = scheduler
        self._waiters = waiters
        self._app = app
        self._rules = rules
        self._tick_soon = tick_soon
        self._used = used
        self._in_use: set[int] = set()
        self._ending: set[int] = set()
        self._lapsed: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False
        self._wish: tuple[Turn, QueuedBlock] | None = None
        self._wishes = itertools.count(FIRST_WISH + random.getrandbits(51))  # other replicas have other numbers

    def wish(self) -> Wish | None:
        """Return the block to begin within the next tick, after which `grant` or `lose_wish` must be called."""
        found = None if self._leaving or self.returned else self._waiters.queue.first()
        if found is None:
            return None
        caller, block = found
        turn = Turn(id=next(self._wishes), caller=caller, usable_in_ms=0)
        in_use = tuple(self._in_use | self._ending)
        self._wish = turn, block
        block.state, block.is_stirred, block.asked_s = BlockState.BEGINNING, False, asyncio.get_running_loop().time()
        return Wish(turn=turn.id, in_use=in_use, caller=caller, block=block.key, known=block.known)

    def grant(self, begun: Beginning | None) -> None:
        """Use the turn that the tick has begun; None if it has begun none."""
        if self._wish is None:
            return
        (turn, block), self._wish = self._wish, None
        if begun is not None:
            self._spawn(block, self._use(turn, block, begun))
            return
        self._wait_again(block, soon=False)
        if block.is_stirred:
            self.look_for(block)

    def lose_wish(self) -> None:
        """Give the turn back with the next tick that gets an answer, because it is unknown whether it has begun."""
        if self._wish is not None:
            self.returned.append(self._wish[0].id)
            self.grant(None)

    def take_all(self, turns: Sequence[Turn]) -> None:
        """Use each turn that a tick has listed for the block that its caller has waited for longest, or give it back.

        Turns that have lapsed are tried again only after a tick that no longer lists them: until then, nothing has
        changed. The scheduler may still list a turn that is in use or about to be ended or given back. Ignore such a
        turn: otherwise reporting its end would free the slot of another call.
        """
        self._lapsed.intersection_update(turn.id for turn in turns)
        ignored = {*self._lapsed, *self._in_use, *self._ending, *self.returned}
        for turn in turns:
            if turn.id in ignored:
                continue
            block = None if self._leaving else self._waiters.queue.next_for(turn.caller)
            if block is None:
                self._give_back(turn)
                continue
            block.state, block.turned_for = BlockState.TURNED, turn.caller
            self._in_use.add(turn.id)
            self._spawn(block, self._use(turn, block))

    def look_for(self, block: QueuedBlock) -> None:
        """Look up the block, since a fetch of it may have ended somewhere."""
        block.is_stirred = True
        if block.state in (BlockState.WAITING, BlockState.ELSEWHERE):
            self._spawn(block, self._look_after_fetch(block))

    def leave(self) -> None:
        """Stop using turns."""
        self._leaving = True

    async def aclose(self) -> None:
        """Wait for the turns in use to end."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, block: QueuedBlock, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(self._guarded(block, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, block: QueuedBlock, work: Coroutine[object, object, None]) -> None:
        """Run `work`; if it fails unexpectedly, pass the error to every request that waits for the block."""
        try:
            await work
        except Exception as exc:
            log.exception("budget.turn_failed", app=self._app)
            self._waiters.fail(block, exc)

    def _give_back(self, turn: Turn) -> None:
        self.returned.append(turn.id)
        self.ends[turn.caller, "returned"] += 1
        self._tick_soon()

    async def _use(self, turn: Turn, block: QueuedBlock, begun: Beginning | None = None) -> None:
        try:
            answer = begun or await self._begin_unless_left(turn, block)
            if isinstance(answer, Begun) and not await self._is_wanted_when_usable(turn, block, answer):
                answer = None
            if answer is None:
                self._wait_again(block)
                self._give_back(turn)
                return
            self.ends[turn.caller, END_OF[type(answer)]] += 1
            match answer:
                case Begun(usable_in_ms=usable_in_ms):
                    self._used(turn.caller)
                    await self._call(turn, block, sent_s=block.asked_s + usable_in_ms / 1000)
                case Joined(lease_in_ms=lease_in_ms):
                    self._join(block, lease_s=lease_in_ms / 1000)
                case AlreadyStored(head=head):
                    block.known = head  # set before the lookup, which may fail: the next turn must begin in any case
                    await self._look(block)
                    self._wait_again(block)
                case Lapsed():
                    self._lapsed.add(turn.id)
                    self._wait_again(block)
                case _:
                    self._wait_again(block)
        except StoreUnavailable:
            self.ends[turn.caller, "lost"] += 1
            # The slot may or may not have been taken: report the fetch as ended, so that its lease doesn't hold the
            # block.
            self._wait_again(block)
            await self._report_done(turn, block)
        finally:
            self._in_use.discard(turn.id)
            self._tick_soon()

    async def _begin_unless_left(self, turn: Turn, block: QueuedBlock) -> Beginning | None:
        """Begin, although the turn may not be usable yet; return None if its caller has left the line meanwhile."""
        if turn.caller not in block.places:
            return None
        block.state, block.is_stirred = BlockState.BEGINNING, False
        return await self._begin(turn, block)

    async def _is_wanted_when_usable(self, turn: Turn, block: QueuedBlock, begun: Begun) -> bool:
        """Wait until the turn is usable; return whether its caller is still in line then."""
        if begun.usable_in_ms == 0:
            return True
        await asyncio.sleep((begun.usable_in_ms + TIMER_MS) / 1000)
        return turn.caller in block.places

    async def _begin(self, turn: Turn, block: QueuedBlock) -> Beginning:
        """Send `begin`, and repeat it once if no answer came: the same turn and block get the same answer."""
        loop = asyncio.get_running_loop()
        block.asked_s = loop.time()
        try:
            return await self._scheduler.begin(turn.id, block=block.key, known=block.known)
        except StoreUnavailable:
            block.asked_s = loop.time()
            return await self._scheduler.begin(turn.id, block=block.key, known=block.known)

    async def _call(self, turn: Turn, block: QueuedBlock, *, sent_s: float) -> None:
        """Call in a turn whose call counts as sent at `sent_s` (loop time)."""
        loop = asyncio.get_running_loop()
        block.state = BlockState.CALLING
        block.attempts += 1
        slot = _CallSlot(
            begin=lambda: self._begin(turn, block),
            app=self._app,
            payer=self._waiters.begin_call(block, turn.caller, now_s=loop.time()),
            asked_s=sent_s,
            late_s=self._rules.transit_ms / 2000,
        )
        try:
            outcome = await block.job.call(slot, attempt=block.attempts)
        except Exception as exc:  # noqa: BLE001 - our own fault, passed on to all waiters; the slot must be freed
            outcome = CallFailed(error=exc)
        took_ms = math.ceil((loop.time() - block.asked_s) * 1000) + TIMER_MS
        self._waiters.end_call(block, now_s=loop.time())
        if not isinstance(outcome, CallFailed):
            self._waiters.serve(block, outcome, payer=turn.caller)
            await self._keep(block)
            await self._report_done(turn, block, took_ms=took_ms)
            return
        await self._report_done(turn, block, outcome, took_ms=took_ms)
        block.known = outcome.head or block.known
        if outcome.stop:
            self._waiters.fail_waiting(outcome.error)
        if outcome.again and not self._leaving:
            self._wait_again(block, None if outcome.head else outcome.error)
        else:
            self._waiters.fail(block, outcome.error)

    async def _keep(self, block: QueuedBlock) -> None:
        try:
            await block.job.keep()
        except Exception:  # the requests have been served, and the slot must be freed
            log.exception("budget.keep_failed", app=self._app)

    async def _report_done(
        self, turn: Turn, block: QueuedBlock, failed: CallFailed | None = None, *, took_ms: int | None = None
    ) -> None:
        """Report the end of a fetch; if Redis is away, retry in the background so that waiting requests are not
        delayed."""
        pause_ms = 0 if failed is None else int(failed.pause_s * 1000)
        reason = "" if failed is None else failed.pause_reason

        async def report() -> bool:
            try:
                await self._scheduler.done(
                    turn.id, block=block.key, pause_ms=pause_ms, pause_reason=reason, took_ms=took_ms
                )
            except StoreUnavailable:
                return False
            return True

        async def report_again() -> None:
            for attempt in range(DONE_TRIES - 1):
                await asyncio.sleep(DONE_AGAIN_S * 2**attempt)
                if await report():
                    break
            self._ending.discard(turn.id)

        if not await report():
            self._ending.add(turn.id)
            self._spawn(block, report_again())

    def _wait_again(self, block: QueuedBlock, error: Exception | None = None, *, soon: bool = True) -> None:
        self._waiters.wait_again(block, now_s=asyncio.get_running_loop().time(), error=error)
        if self._leaving:
            self._waiters.fail(block, ShuttingDown())
        if soon:
            self._tick_soon()

    def _join(self, block: QueuedBlock, *, lease_s: float) -> None:
        """Wait for another replica's fetch, which may already have ended when the answer arrived."""
        block.state = BlockState.ELSEWHERE
        block.joins += 1
        self._spawn(block, self._watch(block, join=block.joins, lease_s=lease_s))
        if block.is_stirred:
            self.look_for(block)

    async def _look(self, block: QueuedBlock) -> None:
        """Look up the block, serve it to the requests that it answers, and remember its head."""
        try:
            found = await block.job.look()
        except StoreUnavailable:
            return
        block.known = found.head
        self._waiters.serve_found(block, found)

    async def _look_after_fetch(self, block: QueuedBlock) -> None:
        join = block.joins
        await self._look(block)
        if self._is_elsewhere(block, join):
            self._wait_again(block)

    async def _watch(self, block: QueuedBlock, *, join: int, lease_s: float) -> None:
        """Poll for a block that is being fetched elsewhere until it is stored or the fetch's lease ends."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + lease_s
        while self._is_elsewhere(block, join):
            await asyncio.sleep(min(LOOK_S, max(ends_s - loop.time(), 0)))
            if not self._is_elsewhere(block, join):
                return
            is_over = loop.time() >= ends_s
            await self._look(block)
            if is_over and self._is_elsewhere(block, join):
                self._wait_again(block)

    def _is_elsewhere(self, block: QueuedBlock, join: int) -> bool:
        """Return whether the block is still waiting for the other replica's fetch that it joined."""
        return self._waiters.queue.holds(block) and block.state is BlockState.ELSEWHERE and block.joins == join


class _CallSlot:
    """The slot of a call that is about to be sent, and counts as sent at `asked_s` (loop time).

    `late_s` is half the transit time; the other half is reserved for the way to the upstream.
    """

    def __init__(
        self, *, begin: Callable[[], Awaitable[Beginning]], app: str, payer: Payer, asked_s: float, late_s: float
    ) -> None:
        self.payer = payer
        self._begin = begin
        self._app = app
        self._late_s = late_s
        self._asked_s = asked_s

    async def hold(self) -> None:
        """Renew the slot if connecting took long, since the transit time starts when the call is sent."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._asked_s <= self._late_s:
            return
        asked_s = loop.time()
        try:
            held = isinstance(await self._begin(), Begun)
        except StoreUnavailable as exc:
            raise UpstreamUnreachable("connecting took too long: the slot was lost", app=self._app) from exc
        if not held or loop.time() - asked_s > self._late_s:
            raise UpstreamUnreachable("connecting took too long: the slot was lost", app=self._app)
