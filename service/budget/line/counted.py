"""A Scheduler that counts the turns that are used, for whom, and otherwise passes everything on."""

from collections.abc import Callable

from service.budget.scheduler.interfaces import Beginning, Begun, Scheduler, Ticked, WaitingCount


class CountedScheduler:
    """Calls `used` with a caller's name for each of its turns that has begun; once, however often it is begun."""

    def __init__(self, scheduler: Scheduler, *, used: Callable[[str], None]) -> None:
        self._scheduler = scheduler
        self._used = used
        self._callers: dict[int, str] = {}
        self._asked: dict[int, str] = {}

    async def tick(
        self, waiting: tuple[WaitingCount, ...], *, returned: tuple[int, ...], quiet: bool, wants_board: bool
    ) -> Ticked:
        """See `Scheduler.tick`."""
        ticked = await self._scheduler.tick(waiting, returned=returned, quiet=quiet, wants_board=wants_board)
        self._callers = {turn.id: turn.caller for turn in ticked.turns}
        return ticked

    async def begin(self, turn: int, *, block: str, block_key: str, known: bytes) -> Beginning:
        """See `Scheduler.begin`."""
        caller = self._asked.setdefault(turn, self._callers.get(turn, ""))
        beginning = await self._scheduler.begin(turn, block=block, block_key=block_key, known=known)
        if not isinstance(beginning, Begun):
            self._asked.pop(turn, None)
        elif caller:
            self._asked[turn] = ""
            self._used(caller)
        return beginning

    async def done(self, turn: int, *, block: str, pause_ms: int, pause_reason: str) -> None:
        """See `Scheduler.done`."""
        self._asked.pop(turn, None)
        await self._scheduler.done(turn, block=block, pause_ms=pause_ms, pause_reason=pause_reason)
