"""Turns are counted when they are used, and once."""

import pytest

from service.budget.line.counted import CountedScheduler
from service.budget.scheduler.interfaces import Beginning, Begun, Rules, Ticked, WaitingCount
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy import Policy
from service.model.errors import StoreUnavailable

RULES = Rules(calls=2, window_ms=100, transit_ms=40)


class Losing(LocalScheduler):
    """Loses the answers of `begin` while told to."""

    loses = False

    async def begin(self, turn: int, *, block: str, block_key: str, known: bytes) -> Beginning:
        """Begin, and perhaps lose the answer."""
        beginning = await super().begin(turn, block=block, block_key=block_key, known=known)
        if self.loses:
            raise StoreUnavailable("timed out")
        return beginning


class World:
    """A counted scheduler on a clock of the test's own, whose quiet window is over."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self.used: list[str] = []
        self.inner = Losing(Policy(RULES), lambda: self.now_ms)
        self.counted = CountedScheduler(self.inner, used=self.used.append)

    async def tick(self, *callers: str, returned: tuple[int, ...] = ()) -> Ticked:
        """Tick with one block wanted by each caller."""
        waiting = tuple(WaitingCount(caller=caller, weight=1.0, count=1, waited_ms=0) for caller in callers)
        return await self.counted.tick(waiting, returned=returned, quiet=False, wants_board=False)

    async def begin(self, turn: int) -> Beginning:
        """Begin a fetch of a block named after the turn."""
        return await self.counted.begin(turn, block=str(turn), block_key=str(turn), known=b"")


@pytest.fixture
async def world() -> World:
    world = World()
    await world.tick()
    world.now_ms = 1000
    return world


async def test_a_used_turn_counts_once_for_its_caller(world: World) -> None:
    """Held anew just before the call it still is one; a turn that is given back is none."""
    first, second = (await world.tick("a", "b")).turns
    assert await world.begin(first.id) == Begun()
    await world.tick("b")
    assert await world.begin(first.id) == Begun()
    await world.tick(returned=(second.id,))
    await world.counted.done(first.id, block=str(first.id), pause_ms=0, pause_reason="")
    assert world.used == [first.caller]


async def test_a_lost_answer_is_counted_when_it_is_repeated(world: World) -> None:
    """Though a tick in between no longer tells the turn."""
    (turn,) = (await world.tick("a")).turns
    world.inner.loses = True
    with pytest.raises(StoreUnavailable):
        await world.begin(turn.id)
    assert world.used == []
    await world.tick()
    world.inner.loses = False
    assert await world.begin(turn.id) == Begun()
    assert world.used == ["a"]


async def test_nothing_is_kept_of_turns_that_are_over(world: World) -> None:
    """However a turn ends, it is forgotten."""
    for _ in range(5):
        (turn,) = (await world.tick("a")).turns
        await world.begin(turn.id)
        await world.counted.done(turn.id, block=str(turn.id), pause_ms=0, pause_reason="")
        await world.begin(turn.id)
        world.now_ms += 1000
    assert not world.counted._asked
