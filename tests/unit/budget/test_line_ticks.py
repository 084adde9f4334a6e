"""A line's ticks: what they report, and what happens to the turns that they return."""

import asyncio

import msgspec
import pytest

from service.budget.line.jobs import Fetched
from service.budget.line.line import HEARTBEAT_S, Line
from service.budget.scheduler.interfaces import Beginning, Begun, Ticked, TickRequest, Turn
from service.model.errors import ShuttingDown, StoreUnavailable, UpstreamTimeout
from tests.servers import until
from tests.unit.budget.lines import RULES, BlockHere, Blocks, ask, failing, lines, ticks_of


async def test_a_request_during_an_empty_tick_is_served(blocks: Blocks) -> None:
    """A request that arrives while a tick reports an empty line is served."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.slow_s = 0.03
        for number in range(4):
            with pytest.raises(UpstreamTimeout):
                await ask(line, BlockHere(blocks, "a", failing(9, again=False)))
            await asyncio.sleep(0.01 * number)
            assert isinstance(await asyncio.wait_for(ask(line, BlockHere(blocks, "a")), 1), Fetched)
            del blocks.stored["a"]


@pytest.mark.parametrize("away", [False, True])
async def test_a_request_at_an_empty_tick_causes_another_tick(blocks: Blocks, away: bool) -> None:
    """If a request arrives during an empty tick, or after one that found Redis unavailable, another tick follows,
    although the board is still new."""
    async with lines(blocks) as ([line], [scheduler]):
        tick, goes_on = scheduler.tick, asyncio.Event()
        held = 0
        scheduler.grants = False

        async def holding(request: TickRequest) -> Ticked:
            nonlocal held
            if not request.waiting and not goes_on.is_set():
                held += 1
                await goes_on.wait()
            return await tick(request)

        assert isinstance(await ask(line, BlockHere(blocks, "a")), Fetched)
        scheduler.tick = holding  # type: ignore[method-assign]
        await until(lambda: held == 1)
        scheduler.away = away
        if away:
            goes_on.set()
            await until(lambda: line.is_cut_off)
        asked = ask(line, BlockHere(blocks, "b"))
        await asyncio.sleep(0)
        goes_on.set()
        async with asyncio.timeout(1):
            if away:
                with pytest.raises(StoreUnavailable):
                    await asked
            else:
                assert isinstance(await asked, Fetched)


async def test_a_turn_is_begun_within_the_tick_that_gives_it(blocks: Blocks) -> None:
    """With a slot free, one call of the scheduler leads to the fetch, another ends it, and no third is needed."""
    async with lines(blocks) as ([line], [scheduler]):
        await until(lambda: line.last is not None)
        scheduler.begin_fault = ZeroDivisionError()
        ticks = ticks_of(scheduler)
        assert isinstance(await ask(line, BlockHere(blocks, "a")), Fetched)
        await asyncio.sleep(2 * HEARTBEAT_S)
        assert ticks() == 1
        assert line.turn_ends == {("x", "used"): 1}
        assert line.waiting() == ()


async def test_a_fetch_begun_by_a_lost_tick_is_given_back(blocks: Blocks) -> None:
    """If the reply to a tick that has begun a fetch is lost, the next tick ends that fetch, and the block is
    fetched again."""
    async with lines(blocks) as ([line], [scheduler]):
        await until(lambda: line.last is not None)
        tick, lost = scheduler.tick, 0

        async def losing(request: TickRequest) -> Ticked:
            nonlocal lost
            ticked = await tick(request)
            if ticked.begun is not None and not lost:
                lost += 1
                raise StoreUnavailable("timed out")
            return ticked

        scheduler.tick = losing  # type: ignore[method-assign]
        assert isinstance(await ask(line, BlockHere(blocks, "a")), Fetched)
        assert (lost, blocks.named()) == (1, ["a"])
        assert line.turn_ends == {("x", "used"): 1}


async def test_a_line_that_closes_during_a_tick_leaves_no_request_waiting(blocks: Blocks) -> None:
    """A fetch that the tick has begun is made; a request whose turn it was not is refused, and none is left waiting."""
    for grants in (True, False):
        async with lines(blocks) as ([line], [scheduler]):
            await until(lambda: line.last is not None)
            scheduler.grants, scheduler.slow_s = grants, 0.05
            asked = ask(line, BlockHere(blocks, f"a{grants}"))
            await until(lambda: scheduler.wishes == 1)
            await line.aclose()
            assert asked.done()
            outcome = (await asyncio.gather(asked, return_exceptions=True))[0]
            assert isinstance(outcome, Fetched if grants else ShuttingDown)


async def test_turns_are_counted_once_when_they_are_used(blocks: Blocks) -> None:
    """Turns that are given back are not counted, and one whose answer was lost is not counted twice."""
    async with lines(blocks) as ([_], [scheduler]):
        used: list[str] = []
        line = Line(scheduler, app="shop", rules=RULES, used=used.append)
        line.start()
        scheduler.grants = False
        begin, lost = scheduler.begin, 0

        async def losing(turn: int, *, block: str, known: bytes) -> Beginning:
            nonlocal lost
            beginning = await begin(turn, block=block, known=known)
            if isinstance(beginning, Begun) and not lost:
                lost += 1
                raise StoreUnavailable("timed out")
            return beginning

        scheduler.begin = losing  # type: ignore[method-assign]
        assert isinstance(await ask(line, BlockHere(blocks, "a"), caller="x"), Fetched)
        assert isinstance(await ask(line, BlockHere(blocks, "b"), caller="y"), Fetched)
        hung_up = ask(line, BlockHere(blocks, "c"), caller="z")
        await asyncio.sleep(0)
        hung_up.cancel()
        await line.aclose()
        assert (lost, used) == (1, ["x", "y"])


async def test_a_turn_about_to_be_given_back_is_not_used(blocks: Blocks) -> None:
    """A late reply may still list a turn about to be returned; if used, its return would free it during its call."""
    async with lines(blocks) as ([line], [scheduler]):
        tick, given = scheduler.tick, Turn(id=7, caller="x", usable_in_ms=0)
        given_back: list[int] = []

        async def listing(request: TickRequest) -> Ticked:
            given_back.extend(request.returned)
            own = tuple(turn for turn in request.returned if turn != given.id)
            ticked = await tick(msgspec.structs.replace(request, returned=own))
            is_late = len(given_back) < 2
            return msgspec.structs.replace(ticked, turns=(*ticked.turns, given)) if is_late else ticked

        scheduler.tick = listing  # type: ignore[method-assign]
        await line.look()
        assert isinstance(await ask(line, BlockHere(blocks, "a")), Fetched)
        assert given_back == [7]
        assert line.turn_ends == {("x", "returned"): 1, ("x", "used"): 1}
