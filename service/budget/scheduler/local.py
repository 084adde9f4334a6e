"""A scheduler within one process, for a replica's own share while Redis is away and for testing the policy."""

from collections.abc import Callable

from service.budget.scheduler.interfaces import Beginning, Ticked, WaitingCount, Wish
from service.budget.scheduler.policy import Policy
from service.budget.scheduler.report_changes import ReportChanges
from service.budget.scheduler.server_clock import ServerClock, any_chance, monotonic_ms
from service.budget.scheduler.state import Reading
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

    async def tick(
        self,
        waiting: tuple[WaitingCount, ...],
        *,
        returned: tuple[int, ...],
        quiet: bool,
        wants_board: bool,
        wish: Wish | None = None,
    ) -> Ticked:
        """See `Scheduler.tick`."""
        now_ms = self._clock_ms()
        changes = self._changes.changes(waiting, now_ms=now_ms)
        ticked = self._policy.tick(
            self._reading(now_ms),
            self._replica,
            waiting,
            changed=None if changes.whole else frozenset(row.caller for row in changes.rows),
            returned=returned,
            quiet=quiet,
            wants_board=wants_board,
            wish=wish,
            stored=b"" if wish is None else self._head(wish.block_key),
        )
        self._answered()
        self._changes.answered(taken=wish.caller if wish and ticked.begun else None)
        self._callers = {turn.id: turn.caller for turn in ticked.turns}
        return ticked

    async def begin(self, turn: int, *, block: str, block_key: str, known: bytes) -> Beginning:
        """See `Scheduler.begin`."""
        if turn in self._callers:
            self._changes.uncertain((self._callers[turn],))
        beginning = self._policy.begin(
            self._reading(self._clock_ms()),
            self._replica,
            turn,
            block=block,
            known=known[:HEAD_BYTES],
            stored=self._head(block_key),
        )
        self._answered()
        return beginning

    async def done(self, turn: int, *, block: str, pause_ms: int, pause_reason: str) -> None:
        """See `Scheduler.done`."""
        reading = self._reading(self._clock_ms())
        self._policy.done(reading, self._replica, turn, block=block, pause_ms=pause_ms, pause_reason=pause_reason)
        self._answered()

    def _head(self, block_key: str) -> bytes:
        return b"" if self._stored is None else self._stored(block_key)[:HEAD_BYTES]

    def _reading(self, now_ms: float) -> Reading:
        epoch, seen_ms = self._server_clock.read(now_ms)
        raw_ms, run_id = self._server()
        return Reading(raw_ms=raw_ms, run_id=run_id, epoch=epoch, seen_ms=seen_ms, chance=self._chance())

    def _answered(self) -> None:
        self._server_clock.answered(self._policy.epoch, self._policy.now, self._clock_ms())
