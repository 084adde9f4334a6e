"""Turns in use on one replica: each by a task of its own, from `begin` to `done`, which nobody cancels."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

import structlog

from service.budget.line.jobs import CallFailed
from service.budget.line.queue import BlockState, QueuedBlock
from service.budget.line.slot import CallSlot
from service.budget.line.tally import TurnTally
from service.budget.line.waiters import BlockWaiters, Waiters
from service.budget.scheduler.interfaces import AlreadyStored, Beginning, Begun, Early, Joined, Rules, Scheduler, Turn
from service.model.errors import StoreUnavailable

log = structlog.get_logger()

T = TypeVar("T")

LOOK_S = 1.0
"""How often a block that another replica fetches is looked for, should the message be lost."""
DONE_TRIES = 5
"""How often the end of a fetch is told; after that its leases end it."""
DONE_AGAIN_S = 0.1
"""How long to wait before the second time; twice as long before each further one."""


class Turns(Generic[T]):
    """Uses the turns that the scheduler gives, and looks for blocks that other replicas fetch.

    `returned` are turns to give back with the next tick, which `tick_soon` asks for.
    """

    def __init__(
        self, scheduler: Scheduler, waiters: Waiters[T], *, app: str, rules: Rules, tick_soon: Callable[[], None]
    ) -> None:
        self.returned: list[int] = []
        self.tally = TurnTally()
        self._scheduler = scheduler
        self._waiters = waiters
        self._app = app
        self._rules = rules
        self._tick_soon = tick_soon
        self._in_use: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving = False

    def take(self, turn: Turn) -> None:
        """Use a turn for what its caller has waited for longest, or give it back; one that is in use is let be."""
        if turn.id in self._in_use:
            return
        want = None if self._leaving else self._waiters.places.next_for(turn.caller)
        if want is None:
            self.returned.append(turn.id)
            self.tally.returned(turn.caller)
            self._tick_soon()
            return
        want.state, want.turned_for = BlockState.TURNED, turn.caller
        self._in_use.add(turn.id)
        self._spawn(self._use(turn, want))

    def look_for(self, want: QueuedBlock[BlockWaiters[T]]) -> None:
        """See whether a block has come, for a fetch of it by some replica may have ended."""
        if want.state in (BlockState.WAITING, BlockState.ELSEWHERE):
            self._spawn(self._look(want))

    def leave(self) -> None:
        """Use no further turn."""
        self._leaving = True

    async def aclose(self) -> None:
        """Wait for the turns in use."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _use(self, turn: Turn, want: QueuedBlock[BlockWaiters[T]]) -> None:
        try:
            answer = await self._begin_when_usable(turn, want)
            self.tally.began(turn.caller, answer)
            match answer:
                case Begun():
                    await self._call(turn, want)
                case Joined(lease_in_ms=lease_in_ms):
                    want.state = BlockState.ELSEWHERE
                    self._spawn(self._watch(want, lease_s=lease_in_ms / 1000))
                case AlreadyStored():
                    await self._look(want)
                case None:
                    self.returned.append(turn.id)
                case _:
                    self._wait_again(want)
        except StoreUnavailable:
            self.tally.lost(turn.caller)
            # Whether the slot was taken is not known: say that the fetch is over, lest its lease keep the block.
            self._wait_again(want)
            await self._tell_done(turn, want.block)
        except Exception as exc:
            log.exception("budget.turn_failed", app=self._app)
            self._waiters.fail(want, exc)
        finally:
            self._in_use.discard(turn.id)
            self._tick_soon()

    async def _begin_when_usable(self, turn: Turn, want: QueuedBlock[BlockWaiters[T]]) -> Beginning | None:
        """Begin as soon as the turn allows it; None where its caller has left the line meanwhile."""
        usable_in_ms = turn.usable_in_ms
        while True:
            await asyncio.sleep(usable_in_ms / 1000)
            if turn.caller not in want.places:
                self._wait_again(want)
                return None
            want.state = BlockState.BEGINNING
            answer = await self._begin(turn, want)
            if not isinstance(answer, Early):
                return answer
            want.state, usable_in_ms = BlockState.TURNED, answer.usable_in_ms

    async def _begin(self, turn: Turn, want: QueuedBlock[BlockWaiters[T]]) -> Beginning:
        """Ask the scheduler, once more where no answer came: it answers the same turn and block the same way."""
        loop, job = asyncio.get_running_loop(), want.payload.job
        want.asked_s = loop.time()
        try:
            return await self._scheduler.begin(turn.id, block=job.block_key, block_key=job.block_key, known=job.known)
        except StoreUnavailable:
            want.asked_s = loop.time()
            return await self._scheduler.begin(turn.id, block=job.block_key, block_key=job.block_key, known=job.known)

    async def _call(self, turn: Turn, want: QueuedBlock[BlockWaiters[T]]) -> None:
        loop = asyncio.get_running_loop()
        want.state = BlockState.CALLING
        want.attempts += 1
        begun_s = loop.time()
        slot = CallSlot(
            begin=lambda: self._begin(turn, want),
            app=self._app,
            payer=self._waiters.payer(want, turn.caller, now_s=begun_s),
            asked_s=want.asked_s,
            late_s=self._rules.transit_ms / 2000,
        )
        try:
            outcome = await want.payload.job.call(slot, attempt=want.attempts)
        except Exception as exc:  # noqa: BLE001 - a fault of ours, told to all who wait; the slot must be freed
            outcome = CallFailed(error=exc)
        if not isinstance(outcome, CallFailed):
            upstream_s = loop.time() - begun_s
            self._waiters.serve(want, outcome, begun_s=begun_s, upstream_s=upstream_s, payer=turn.caller)
            await self._tell_done(turn, want.block)
            return
        await self._tell_done(turn, want.block, outcome)
        if outcome.stop:
            self._waiters.fail_waiting(outcome.error)
        if outcome.again and not self._leaving:
            self._wait_again(want)
        else:
            self._waiters.fail(want, outcome.error)

    async def _tell_done(self, turn: Turn, block: str, failed: CallFailed | None = None) -> None:
        pause_ms = 0 if failed is None else int(failed.pause_s * 1000)
        reason = "" if failed is None else failed.pause_reason
        for attempt in range(DONE_TRIES):
            try:
                await self._scheduler.done(turn.id, block=block, pause_ms=pause_ms, pause_reason=reason)
            except StoreUnavailable:
                await asyncio.sleep(DONE_AGAIN_S * 2**attempt)
            else:
                return

    def _wait_again(self, want: QueuedBlock[BlockWaiters[T]]) -> None:
        self._waiters.wait_again(want, now_s=asyncio.get_running_loop().time())
        self._tick_soon()

    async def _look(self, want: QueuedBlock[BlockWaiters[T]], *, is_over: bool = True) -> None:
        """Serve the block if it is there; if its fetch `is_over` without it, wait for a turn again."""
        try:
            value = await want.payload.job.look()
        except StoreUnavailable:
            value = None
        if self._waiters.places.wants.get(want.block) is not want or want.state is BlockState.CALLING:
            return
        if value is not None:
            now_s = asyncio.get_running_loop().time()
            self._waiters.serve(want, value, begun_s=now_s, upstream_s=0.0, payer=None)
        elif is_over and want.state is not BlockState.WAITING:
            self._wait_again(want)

    async def _watch(self, want: QueuedBlock[BlockWaiters[T]], *, lease_s: float) -> None:
        """Look for a block that is fetched elsewhere until it is there or its lease ends."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + lease_s
        while want.state is BlockState.ELSEWHERE and want.places and not self._leaving:
            await asyncio.sleep(min(LOOK_S, max(ends_s - loop.time(), 0)))
            if want.state is BlockState.ELSEWHERE:
                await self._look(want, is_over=loop.time() >= ends_s)
