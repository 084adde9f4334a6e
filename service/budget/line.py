"""The line of one replica for one app: requests wait in it, the scheduler's turns are used from it.

A request only waits. Asking the scheduler and calling the upstream are tasks of the line's own, which nobody cancels:
a request that ends early takes its place away and leaves them be.
"""

import asyncio
from collections.abc import Coroutine
from typing import Generic, TypeVar

import msgspec
import structlog

from service.budget.estimate import estimate_wait_ms
from service.budget.jobs import Failed, Fetched, Full, Job, TooLong
from service.budget.places import State, Want
from service.budget.scheduler import (
    Beginning,
    Begun,
    Board,
    Early,
    Joined,
    Known,
    Rules,
    Scheduler,
    Ticked,
    Turn,
    Waiting,
)
from service.budget.slot import CallSlot
from service.budget.tally import TurnTally
from service.budget.waiters import Waiter, Waiters, Wanted
from service.model.errors import ShuttingDown, StoreUnavailable
from service.model.origin import NOBODY, Origin

log = structlog.get_logger()

T = TypeVar("T")

HEARTBEAT_S = 0.25
"""A waiting replica ticks at least so often; well below the report's lease."""
SPACING_S = 0.005
"""Ticks are at least so far apart, however many requests come at once."""
AWAY_S = 0.1
"""How long to wait before the next tick where Redis did not answer."""
AWAY_IDLE_S = 1.0
"""The same where nobody waits: so it shows that Redis is back, and the quiet window of a new one begins."""
LOOK_S = 1.0
"""How often a block that another replica fetches is looked for, should the message be lost."""
DONE_TRIES = 5
"""How often the end of a fetch is told; after that its leases end it."""


class Line(Generic[T]):
    """Where one replica's requests wait for the turns of one app. Lives from `start` to `aclose`."""

    def __init__(self, scheduler: Scheduler, *, app: str, rules: Rules, redis_grace_s: float = 2.0) -> None:
        self.last: Ticked | None = None
        self.turns = TurnTally()
        self._scheduler = scheduler
        self._app = app
        self._rules = rules
        self._redis_grace_s = redis_grace_s
        self._waiters: Waiters[T] = Waiters(estimate=self.estimate_s, changed=self._tick_soon)
        self._tasks: set[asyncio.Task[None]] = set()
        self._turns: set[int] = set()
        self._returned: list[int] = []
        self._board: Board | None = None
        self._board_at_s = 0.0
        self._lookers: set[asyncio.Future[Ticked | None]] = set()
        self._urgent = asyncio.Event()
        self._ticked_at_s = 0.0
        self._due_at_s: float | None = None
        self._reported = False
        self._away_since_s: float | None = None
        self._closing = False
        self._stopped = False
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to tick; the first tick starts the quiet window of an app that is new to Redis."""
        self._urgent.set()
        self._ticker = asyncio.create_task(self._tick_on())

    async def fetch(
        self, job: Job[T], *, caller: str, weight: float, patience_s: float, bound: int, origin: Origin = NOBODY
    ) -> Fetched[T] | TooLong | Full:
        """Wait until the block has come. May be cancelled: the place in line is given up at once.

        Patience (seconds) bounds the wait for a turn; a call that is under way is waited for. `bound` is how many
        blocks the caller may wait for. Raises UpstreamError, StoreUnavailable or ShuttingDown.
        """
        if self._closing:
            raise ShuttingDown
        loop = asyncio.get_running_loop()
        places = self._waiters.places
        want = places.wants.get(job.block_key)
        if places.held_by(caller) >= bound and (want is None or caller not in want.places):
            return Full(bound=bound, estimate_s=self.estimate_s(caller, weight, 1))
        waiter: Waiter[T] = Waiter(
            caller=caller, weight=weight, entered_s=loop.time(), patience_s=patience_s, origin=origin
        )
        want = self._waiters.enter(job, waiter)
        is_ticking = self._reported and self._due_at_s is not None and not self.is_cut_off
        if is_ticking and waiter.entered_s - self._board_at_s < HEARTBEAT_S:
            self._waiters.judge(want, waiter, now_s=waiter.entered_s)
        else:
            self._tick_soon()
        timer = loop.call_at(waiter.deadline_s, self._waiters.expire, want, waiter)
        try:
            return await waiter.future
        finally:
            timer.cancel()
            self._waiters.leave(want, waiter)

    def heard(self, block: str) -> None:
        """A replica has ended a fetch of `block`: see whether it is what is waited for here."""
        want = self._waiters.places.wants.get(block)
        if want is not None and want.state in (State.WAITING, State.ELSEWHERE):
            self._spawn(self._look(want))

    def heard_nothing(self) -> None:
        """Messages may have been lost: look for everything that others fetch."""
        for want in tuple(self._waiters.places.wants.values()):
            if want.state is State.ELSEWHERE:
                self._spawn(self._look(want))

    def wants(self, block: str) -> bool:
        """Whether somebody on this replica waits for the block."""
        return block in self._waiters.places.wants

    async def look(self) -> Ticked | None:
        """The app's state with its board, at most HEARTBEAT_S old; None where the scheduler can't be asked in time."""
        loop = asyncio.get_running_loop()
        is_new = loop.time() - self._board_at_s < HEARTBEAT_S and not self.is_cut_off
        if is_new and self.last is not None and self._board is not None:
            return msgspec.structs.replace(self.last, board=self._board)
        looker: asyncio.Future[Ticked | None] = loop.create_future()
        self._lookers.add(looker)
        self._tick_soon()
        try:
            return await asyncio.wait_for(looker, LOOK_S)
        except TimeoutError:
            return None
        finally:
            self._lookers.discard(looker)

    def waiting(self) -> tuple[Waiting, ...]:
        """Who waits on this replica for a turn."""
        return self._waiters.places.report(now_s=asyncio.get_running_loop().time())

    def seen_s(self) -> float:
        """How long ago `last` was told, in seconds."""
        return asyncio.get_running_loop().time() - self._ticked_at_s

    @property
    def is_cut_off(self) -> bool:
        """Whether the scheduler could not be asked when last tried."""
        return self._away_since_s is not None

    def leave(self) -> None:
        """Refuse those who wait and whoever comes: another replica serves them sooner."""
        self._closing = True
        self._waiters.fail_waiting(ShuttingDown())
        self._tick_soon()

    async def aclose(self) -> None:
        """Refuse those who wait, let calls under way end, give the turns back."""
        self.leave()
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._stopped = True
        self._tick_soon()
        if self._ticker is not None:
            await self._ticker

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Turns are asked for on every tick.

    def _tick_soon(self) -> None:
        self._urgent.set()

    async def _tick_on(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopped:
            try:
                await asyncio.wait_for(self._urgent.wait(), self._next_tick_in_s(loop.time()))
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(max(self._ticked_at_s + SPACING_S - loop.time(), 0))
            self._urgent.clear()
            try:
                await self._tick()
            except Exception:
                log.exception("budget.tick_failed", app=self._app)
                self._tick_soon()
                await asyncio.sleep(AWAY_S)

    def _next_tick_in_s(self, now_s: float) -> float | None:
        """Seconds until the next tick is due; None: only when something happens."""
        if self._away_since_s is not None:
            return AWAY_S if self._waiters.places.wants else AWAY_IDLE_S
        if self._reported or self._returned:
            due_s = self._ticked_at_s + HEARTBEAT_S
            if self._due_at_s is not None:
                due_s = min(due_s, max(self._due_at_s, self._ticked_at_s + SPACING_S))
            return max(due_s - now_s, 0.0)
        return None

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        rows = () if self._closing else self._waiters.places.report(now_s=loop.time())
        returned = tuple(self._returned)
        lookers = tuple(self._lookers)
        wants_board = bool(lookers) or self._waiters.has_unjudged()
        self._reported = bool(rows)  # before the answer: who comes meanwhile must know whether there'll be another tick
        try:
            ticked = await self._scheduler.tick(rows, returned=returned, quiet=False, wants_board=wants_board)
        except StoreUnavailable as exc:
            self._lost_redis(exc)
            _tell(lookers, None)
            return
        now_s = loop.time()
        if self._away_since_s is not None:
            log.info("budget.redis_back", app=self._app, away_s=round(now_s - self._away_since_s, 1))
        self._away_since_s = None
        del self._returned[: len(returned)]
        pause_grew = ticked.pause_in_ms > 0 and (self.last is None or self.last.pause_in_ms == 0)
        self.last, self._ticked_at_s = ticked, now_s
        self._due_at_s = None if ticked.due_in_ms is None else now_s + ticked.due_in_ms / 1000
        _tell(lookers, ticked)
        for turn in ticked.turns:
            self._take(turn)
        if ticked.board is not None:
            self._board, self._board_at_s = ticked.board, now_s
        if ticked.board is not None or pause_grew:
            self._waiters.judge_all(now_s=now_s, again=pause_grew)

    def _lost_redis(self, error: StoreUnavailable) -> None:
        """Wait out a short absence of Redis; after that there is no telling when a turn will come."""
        now_s = asyncio.get_running_loop().time()
        self._ticked_at_s = now_s
        if self._away_since_s is None:
            self._away_since_s = now_s
            log.warning("budget.redis_away", app=self._app, detail=error.detail)
        if now_s - self._away_since_s >= self._redis_grace_s:
            self._waiters.fail_waiting(error)

    def estimate_s(self, caller: str, weight: float, place: int = 1) -> float:
        """Expected wait in seconds from now for the caller's `place`-th block, as far as is known."""
        if self.last is None:
            return 0.0
        since_ms = int((asyncio.get_running_loop().time() - self._ticked_at_s) * 1000)
        due_in_ms = max((self.last.due_in_ms or 0) - since_ms, self.last.pause_in_ms - since_ms, 0)
        board = self._board or Board(virtual=0.0, held_ms=0, ranks=())
        estimate_ms = estimate_wait_ms(
            board, caller=caller, weight=weight, place=place, rules=self._rules, due_in_ms=due_in_ms
        )
        return estimate_ms / 1000

    # A turn is used by a task of its own.

    def _take(self, turn: Turn) -> None:
        if turn.id in self._turns:
            return
        want = None if self._closing else self._waiters.places.next_for(turn.caller)
        if want is None:
            self._returned.append(turn.id)
            self.turns.returned(turn.caller)
            self._tick_soon()
            return
        want.state, want.turned_for = State.TURNED, turn.caller
        self._turns.add(turn.id)
        self._spawn(self._use(turn, want))

    async def _use(self, turn: Turn, want: Want[Wanted[T]]) -> None:
        try:
            answer = await self._begin_when_usable(turn, want)
            self.turns.began(turn.caller, answer)
            match answer:
                case Begun():
                    await self._call(turn, want)
                case Joined(lease_in_ms=lease_in_ms):
                    want.state = State.ELSEWHERE
                    self._spawn(self._watch(want, lease_s=lease_in_ms / 1000))
                case Known():
                    await self._look(want)
                case None:
                    self._returned.append(turn.id)
                case _:
                    self._wait_again(want)
        except StoreUnavailable:
            self.turns.lost(turn.caller)
            # Whether the slot was taken is not known: say that the fetch is over, lest its lease keep the block.
            self._wait_again(want)
            await self._tell_done(turn, want.block)
        except Exception as exc:
            log.exception("budget.turn_failed", app=self._app)
            self._waiters.fail(want, exc)
        finally:
            self._turns.discard(turn.id)
            self._tick_soon()

    async def _begin_when_usable(self, turn: Turn, want: Want[Wanted[T]]) -> Beginning | None:
        """Begin as soon as the turn allows it; None where its caller has left the line meanwhile."""
        usable_in_ms = turn.usable_in_ms
        while True:
            await asyncio.sleep(usable_in_ms / 1000)
            if turn.caller not in want.places:
                self._wait_again(want)
                return None
            want.state = State.BEGINNING
            answer = await self._begin(turn, want)
            if not isinstance(answer, Early):
                return answer
            want.state, usable_in_ms = State.TURNED, answer.usable_in_ms

    async def _begin(self, turn: Turn, want: Want[Wanted[T]]) -> Beginning:
        """Ask the scheduler, once more where no answer came: it answers the same turn and block the same way."""
        loop, job = asyncio.get_running_loop(), want.payload.job
        want.asked_s = loop.time()
        try:
            return await self._scheduler.begin(turn.id, block=job.block_key, block_key=job.block_key, known=job.known)
        except StoreUnavailable:
            want.asked_s = loop.time()
            return await self._scheduler.begin(turn.id, block=job.block_key, block_key=job.block_key, known=job.known)

    async def _call(self, turn: Turn, want: Want[Wanted[T]]) -> None:
        loop = asyncio.get_running_loop()
        want.state = State.CALLING
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
            outcome = Failed(error=exc)
        if not isinstance(outcome, Failed):
            upstream_s = loop.time() - begun_s
            self._waiters.serve(want, outcome, begun_s=begun_s, upstream_s=upstream_s, payer=turn.caller)
            await self._tell_done(turn, want.block)
            return
        await self._tell_done(turn, want.block, outcome)
        if outcome.stop:
            self._waiters.fail_waiting(outcome.error)
        if outcome.again and not self._closing:
            self._wait_again(want)
        else:
            self._waiters.fail(want, outcome.error)

    async def _tell_done(self, turn: Turn, block: str, failed: Failed | None = None) -> None:
        pause_ms = 0 if failed is None else int(failed.pause_s * 1000)
        reason = "" if failed is None else failed.pause_reason
        for attempt in range(DONE_TRIES):
            try:
                await self._scheduler.done(turn.id, block=block, pause_ms=pause_ms, pause_reason=reason)
            except StoreUnavailable:
                await asyncio.sleep(AWAY_S * 2**attempt)
            else:
                return

    def _wait_again(self, want: Want[Wanted[T]]) -> None:
        self._waiters.wait_again(want, now_s=asyncio.get_running_loop().time())
        self._tick_soon()

    # Other replicas fetch, too.

    async def _look(self, want: Want[Wanted[T]], *, is_over: bool = True) -> None:
        """Serve the block if it is there; if its fetch `is_over` without it, wait for a turn again."""
        try:
            value = await want.payload.job.look()
        except StoreUnavailable:
            value = None
        if self._waiters.places.wants.get(want.block) is not want or want.state is State.CALLING:
            return
        if value is not None:
            now_s = asyncio.get_running_loop().time()
            self._waiters.serve(want, value, begun_s=now_s, upstream_s=0.0, payer=None)
        elif is_over and want.state is not State.WAITING:
            self._wait_again(want)

    async def _watch(self, want: Want[Wanted[T]], *, lease_s: float) -> None:
        """Look for a block that is fetched elsewhere until it is there or its lease ends."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + lease_s
        while want.state is State.ELSEWHERE and want.places and not self._closing:
            await asyncio.sleep(min(LOOK_S, max(ends_s - loop.time(), 0)))
            if want.state is State.ELSEWHERE:
                await self._look(want, is_over=loop.time() >= ends_s)


def _tell(lookers: tuple["asyncio.Future[Ticked | None]", ...], ticked: Ticked | None) -> None:
    for looker in lookers:
        if not looker.done():
            looker.set_result(ticked)
