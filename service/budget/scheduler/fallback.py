"""`on_redis_down: share`: while Redis is away, each replica gives out its own share of the calls (rule 9).

Guaranteed: at most N calls in a window if Redis is away for all replicas or for none, however far apart they notice,
with at most `max_replicas` replicas. Not guaranteed: if a single replica is cut off from Redis, it uses its share while
the others use the whole budget, so up to N + N // max_replicas calls fall into a window. Nor is each block fetched only
once (rule 4): each replica fetches for itself. See docs/adr/0004-redis-away.md.
"""

import asyncio
import time
from collections.abc import Callable

import msgspec
import structlog

from service.budget.scheduler.interfaces import Beginning, Begun, Board, Lapsed, Scheduler, Ticked, TickRequest
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.outage import Outage
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.model.errors import StoreUnavailable

PROBE_S = 0.5
"""The longest time between two calls to Redis, even while idle: all replicas must agree on whether it is away."""
NOTICE_MARGIN_S = 0.25
"""How late a probe may be beyond Redis' timeouts, because of a busy event loop or the breaker."""

log = structlog.get_logger()


def notice_s(timeout_s: float) -> float:
    """Return how far apart replicas may detect a change: a probe hangs, is refused, and the next one succeeds."""
    return PROBE_S + NOTICE_MARGIN_S + 3 * timeout_s


class FallbackScheduler:
    """A Scheduler that forwards to the shared one and, while that is away, gives out this replica's share.

    Runs from `start` to `aclose`. Turns are valid only on the side that gave them; on the other side they have lapsed.
    `grace_s` is how long Redis must be away before sharing starts; for `notice_s` see the function; `clock_s` is
    monotonic.
    """

    def __init__(
        self,
        shared: Scheduler,
        *,
        app: str,
        rules: Rules,
        max_replicas: int,
        grace_s: float,
        notice_s: float,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raise ValueError if there are fewer calls than replicas."""
        self._shared = shared
        self._app = app
        self._rules = rules
        self._own_rules = msgspec.structs.replace(rules, calls=rules.calls // max_replicas, ahead_ms=0)
        self._clock_s = clock_s
        quiet_s = rules.taken_ms / 1000
        ahead_s = rules.ahead_max_ms / 1000
        self._outage = Outage(grace_s=grace_s, notice_s=notice_s, quiet_s=quiet_s, ahead_s=ahead_s)
        self._own: LocalScheduler | None = None
        self._given: set[int] = set()
        self._begun: set[int] = set()
        self._paused_until_s = 0.0
        self._pause_reason = ""
        self._asked_s = clock_s()
        self._asking = asyncio.Lock()
        self._closing = asyncio.Event()
        self._prober: asyncio.Task[None] | None = None

    @property
    def calls_alone(self) -> int | None:
        """Return this replica's share of the calls while it uses that share, else None."""
        return None if self._own is None else self._own_rules.calls

    def start(self) -> None:
        """Start watching Redis."""
        self._prober = asyncio.create_task(self._watch())

    async def aclose(self) -> None:
        """Stop watching; wait for a call under way, which is bounded in time."""
        self._closing.set()
        if self._prober is not None:
            await self._prober

    async def probe(self) -> None:
        """Send Redis an empty report. After sharing, request a quiet window, because no local turn can begin
        anymore."""
        shared_until_now = self._own is not None
        try:
            await self._tick_shared(TickRequest())
            if shared_until_now:
                await self._tick_shared(TickRequest(quiet=True))
                if pause_ms := self._pause_left_ms():
                    await self._shared.done(0, block="", pause_ms=pause_ms, pause_reason=self._pause_reason)
        except StoreUnavailable:
            pass

    async def tick(self, request: TickRequest) -> Ticked:
        """See `Scheduler.tick`. Raise StoreUnavailable only during the grace period. Wishes are for the shared side.

        Turns that could not begin now, since Redis was not seen to be away recently, are not listed.
        """
        if self._own is None:
            try:
                return await self._tick_shared(request)
            except StoreUnavailable:
                if self._own is None:
                    raise
        request = self._kept_quiet(msgspec.structs.replace(request, wish=None))
        ticked = await self._own.tick(request)
        if not self._outage.may_begin_alone(now_s=self._clock_s()):
            ticked = msgspec.structs.replace(ticked, turns=())
        self._note(ticked, asked_s=self._clock_s(), quiet=request.quiet)
        return ticked if ticked.board is None else msgspec.structs.replace(ticked, board=self._scaled(ticked.board))

    async def begin(self, turn: int, *, block: str, known: bytes) -> Beginning:
        """See `Scheduler.begin`. While sharing, all blocks are in memory: other replicas' blocks cannot be found or
        joined."""
        if turn not in self._given and turn not in self._begun:
            return Lapsed()
        if self._own is not None and not self._outage.may_begin_alone(now_s=self._clock_s()):
            return Lapsed()
        self._begun.add(turn)  # set before the call: it may have begun even if no answer comes
        beginning = await self._side.begin(turn, block=block, known=known)
        if not isinstance(beginning, Begun):
            self._begun.discard(turn)
        return beginning

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """See `Scheduler.done`. A turn of the other side is ignored here, but its pause applies."""
        self._begun.discard(turn)
        self._pause(pause_ms, pause_reason)
        await self._side.done(turn, block=block, pause_ms=pause_ms, pause_reason=pause_reason, took_ms=took_ms)

    @property
    def _side(self) -> Scheduler:
        return self._shared if self._own is None else self._own

    async def _tick_shared(self, request: TickRequest) -> Ticked:
        """Tick the shared scheduler. Ticks must not overlap, since each report replaces the one before it."""
        async with self._asking:
            asked_s = self._asked_s = self._clock_s()
            request = self._kept_quiet(request)
            try:
                ticked = await self._shared.tick(request)
            except StoreUnavailable:
                await self._missed(asked_s)
                raise
            self._answered()
            self._note(ticked, asked_s=asked_s, quiet=request.quiet)
            if request.wish is not None and isinstance(ticked.begun, Begun):
                self._begun.add(request.wish.turn)
            return ticked

    def _kept_quiet(self, request: TickRequest) -> TickRequest:
        """Return the request, with a quiet window if one is owed."""
        return request if self._outage.owed_until_s is None else msgspec.structs.replace(request, quiet=True)

    async def _missed(self, asked_s: float) -> None:
        self._outage = self._outage.failed(asked_s=asked_s, now_s=self._clock_s())
        if not self._outage.shares or self._own is not None:
            return
        log.warning("budget.shares", app=self._app, calls=self._own_rules.calls)
        own = LocalScheduler(Policy(self._own_rules), lambda: self._clock_s() * 1000)
        await own.tick(TickRequest(quiet=True))
        self._outage = self._outage.kept_quiet(asked_s=self._clock_s())
        await own.done(0, block="", pause_ms=self._pause_left_ms(), pause_reason=self._pause_reason)
        self._change_to(own)

    def _answered(self) -> None:
        self._outage = self._outage.answered(now_s=self._clock_s())
        if self._own is not None:
            log.warning("budget.shared_again", app=self._app)
            self._change_to(None)

    def _change_to(self, own: LocalScheduler | None) -> None:
        """Switch sides; from now on, no turn of the other side can begin."""
        self._own = own
        self._given.clear()
        self._begun.clear()

    def _note(self, ticked: Ticked, *, asked_s: float, quiet: bool) -> None:
        if quiet:
            self._outage = self._outage.kept_quiet(asked_s=asked_s)
        self._given = {turn.id for turn in ticked.turns}
        self._pause(ticked.pause_in_ms, ticked.pause_reason)

    def _pause(self, pause_ms: int, reason: str) -> None:
        until_s = self._clock_s() + pause_ms / 1000
        if pause_ms > 0 and until_s > self._paused_until_s:
            self._paused_until_s, self._pause_reason = until_s, reason

    def _pause_left_ms(self) -> int:
        return max(round((self._paused_until_s - self._clock_s()) * 1000), 0)

    def _scaled(self, board: Board) -> Board:
        """Scale the board for estimates that assume N slots, by lengthening the time that each slot is held."""
        rest_ms, whole, part = self._rules.rest_ms, self._rules.calls, self._own_rules.calls
        return msgspec.structs.replace(board, held_ms=(rest_ms + board.held_ms) * whole // part - rest_ms)

    async def _watch(self) -> None:
        """Probe Redis after every idle interval; while this replica shares, nothing else calls Redis."""
        while not self._closing.is_set():
            asked_s = self._asked_s
            try:
                await asyncio.wait_for(self._closing.wait(), asked_s + PROBE_S - self._clock_s())
            except TimeoutError:
                if self._asked_s == asked_s:
                    await self.probe()
