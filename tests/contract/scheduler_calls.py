"""Calls of schedulers with defaults for what tests omit."""

from service.budget.scheduler.interfaces import FIRST_WISH, Scheduler, Ticked, TickRequest, Turn, WaitingCount, Wish
from tests.contract.scheduler_world import RULES, World

REST = RULES.rest_ms
QUIET = RULES.longest_ms
"""For how long all slots start taken."""
TAKEN = RULES.taken_ms
"""For how long one is taken from when its call is sent."""
KEY = "b"
"""The block of calls that name none."""


async def tick(
    replica: Scheduler,
    *rows: WaitingCount,
    returned: tuple[int, ...] = (),
    quiet: bool = False,
    board: bool = False,
    wish: Wish | None = None,
) -> Ticked:
    request = TickRequest(waiting=rows, returned=returned, quiet=quiet, wants_board=board, wish=wish)
    return await replica.tick(request)


def wish(
    caller: str = "a", block: str = "b", *, number: int = 1, known: bytes = b"", in_use: tuple[int, ...] = ()
) -> Wish:
    return Wish(turn=FIRST_WISH + number, in_use=in_use, caller=caller, block=block, known=known)


async def begin(replica: Scheduler, turn: Turn, block: str = "b", *, known: bytes = b"") -> object:
    return await replica.begin(turn.id, block=block, known=known)


async def done(
    replica: Scheduler,
    turn: Turn,
    block: str = "b",
    *,
    pause_ms: int = 0,
    reason: str = "",
    took_ms: int | None = None,
) -> None:
    await replica.done(turn.id, block=block, pause_ms=pause_ms, pause_reason=reason, took_ms=took_ms)


async def awake(world: World, name: str = "r1") -> Scheduler:
    """A replica whose app's first quiet window has passed."""
    replica = world.replica(name)
    await tick(replica)
    world.now += QUIET
    return replica
