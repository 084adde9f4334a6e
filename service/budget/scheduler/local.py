"""A scheduler within one process, for a replica's own share while Redis is away and for testing the policy."""

from collections.abc import Callable
from functools import partial

from service.budget.scheduler.interfaces import Beginning, Begun, Ticked, TickRequest
from service.budget.scheduler.policy.state import Reading
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.report_changes import ReportChanges
from service.budget.scheduler.server_clock import ServerClock, any_chance, monotonic_ms
from service.model.blocks import HEAD_BYTES


class LocalScheduler:
    """One app's turns, given out by `policy` in this process. It starts with a quiet window, as after every reset.

    `clock_ms` is monotonic. `stored` returns the value under a block's key, b"" for none; without it no block counts as
    stored, since no other process can have stored one. `server` and `chance` are only for tests.
    """

    def __init__(
        self,
        policy: Policy,
        clock_ms: Callable[[], float] = monotonic_ms,
        *,
        replica: str = "local",
        stored: Callable[[str], bytes] | None = None,
        chance: Callable[[], int] = any_chance,
        server: Callable[[], tuple[int, str]] | None = None,
    ) -> None:
        self._policy = policy
        self._clock_ms = clock_ms
        self._replica = replica
        self._stored = stored
        self._chance = chance
        self._server = server or (lambda: (int(clock_ms()), "local"))
        self._server_clock = ServerClock()
        self._changes = ReportChanges()
        self._callers: dict[int, str] = {}

    async def tick(self, request: TickRequest) -> Ticked:
        """See `Scheduler.tick`."""
        now_ms = self._clock_ms()
        wish = request.wish
        changes = self._changes.changes(request.waiting, now_ms=now_ms)
        ticked = self._policy.tick(
            self._reading(now_ms),
            self._replica,
            request,
            changed=None if changes.whole else frozenset(row.caller for row in changes.rows),
            stored=b"" if wish is None else self._head(wish.block),
        )
        wait_ms = self._answered(now_ms)
        self._changes.answered(taken=wish.caller if wish and ticked.begun else None)
        self._callers = {turn.id: turn.caller for turn in ticked.turns}
        return ticked.by_own_clock(wait_ms)

    async def begin(self, turn: int, *, block: str, known: bytes) -> Beginning:
        """See `Scheduler.begin`."""
        if turn in self._callers:
            self._changes.uncertain((self._callers[turn],))
        now_ms = self._clock_ms()
        beginning = self._policy.begin(
            self._reading(now_ms),
            self._replica,
            turn,
            block=block,
            known=known[:HEAD_BYTES],
            stored=self._head(block),
        )
        wait_ms = self._answered(now_ms)
        return beginning.by_own_clock(wait_ms) if isinstance(beginning, Begun) else beginning

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """See `Scheduler.done`."""
        now_ms = self._clock_ms()
        self._policy.done(
            self._reading(now_ms),
            self._replica,
            turn,
            block=block,
            pause_ms=pause_ms,
            pause_reason=pause_reason,
            took_ms=took_ms,
        )
        self._answered(now_ms)

    def _head(self, block_key: str) -> bytes:
        return b"" if self._stored is None else self._stored(block_key)[:HEAD_BYTES]

    def _reading(self, now_ms: float) -> Reading:
        epoch, seen_ms = self._server_clock.read(now_ms)
        raw_ms, run_id = self._server()
        return Reading(
            raw_ms=raw_ms,
            run_id=run_id,
            epoch=epoch,
            seen_ms=seen_ms,
            ahead_ms=self._policy.rules.ahead_for(self._server_clock.round_trip_ms),
            chance=self._chance(),
        )

    def _answered(self, sent_ms: float) -> Callable[[int], int]:
        """Learn from the answer that arrives now; return what shortens its waits, see `ServerClock.wait_ms`."""
        arrived_ms, since_ms = self._clock_ms(), self._policy.now
        self._server_clock.answered(self._policy.epoch, since_ms, sent_ms=sent_ms, now_ms=arrived_ms)
        window_ms = self._policy.rules.window_ms
        return partial(self._server_clock.wait_ms, since_ms=since_ms, within_ms=window_ms, now_ms=arrived_ms)
