"""The line of one replica, on the policy itself: lines that share a policy are replicas that share a budget."""

import asyncio

import pytest

from service.budget.line.jobs import Fetched, LineIsFull, TooLong
from service.budget.scheduler.interfaces import TickRequest
from service.model.errors import ShuttingDown
from tests.queued_jobs import text_of
from tests.servers import until
from tests.unit.budget.lines import RULES, BlockHere, Blocks, ask, lines, now_s


async def test_an_uncontended_block_is_fetched_at_once(blocks: Blocks) -> None:
    """With a slot free, the only wait is for the call."""
    async with lines(blocks) as ([line], _):
        started_s = now_s()
        fetched = await ask(line, BlockHere(blocks, "a"))
        assert isinstance(fetched, Fetched)
        assert (text_of(fetched.value), fetched.joined) == ("A", False)
        assert now_s() - started_s < 0.1


async def test_calls_keep_the_limit_and_every_block_is_fetched(blocks: Blocks) -> None:
    """Of twelve blocks at 2 in 100 ms, no window has three, and all are fetched."""
    async with lines(blocks, 3) as (made, _):
        names = [f"b{number}" for number in range(12)]
        asked = [ask(made[number % 3], BlockHere(blocks, name)) for number, name in enumerate(names)]
        for name, task in zip(names, asked, strict=True):
            fetched = await task
            assert isinstance(fetched, Fetched)
            assert text_of(fetched.value) == name.upper()
    times = sorted(at for _, at in blocks.calls)
    assert len(times) == 12
    assert min(later - earlier for earlier, later in zip(times, times[2:], strict=False)) >= 0.1


async def test_a_hundred_requests_for_a_block_cost_one_call(blocks: Blocks) -> None:
    """A hundred requests of many callers on several replicas cost one call; one has paid, all others have joined."""
    async with lines(blocks, 3) as (made, _):
        asked = [ask(made[n % 3], BlockHere(blocks, "a"), caller=f"c{n % 7}") for n in range(100)]
        fetched = [await task for task in asked]
    assert blocks.named() == ["a"]
    assert [isinstance(each, Fetched) and each.joined for each in fetched].count(False) == 1


async def test_the_first_turn_fetches_for_all_waiting_callers(blocks: Blocks) -> None:
    """A caller with a backlog requests the same block as one without: both get it at the light caller's turn."""
    async with lines(blocks) as ([line], _):
        backlog = [ask(line, BlockHere(blocks, f"b{n}"), caller="heavy") for n in range(10)]
        last = ask(line, BlockHere(blocks, "wanted"), caller="heavy")
        light = ask(line, BlockHere(blocks, "wanted"), caller="light")
        paid, joined = await light, await last
        assert isinstance(paid, Fetched)
        assert isinstance(joined, Fetched)
        assert (paid.joined, joined.joined) == (False, True)
        assert len(blocks.calls) < 6
        for task in backlog:
            await task
    assert blocks.named().count("wanted") == 1


async def test_only_the_background_comes_last(blocks: Blocks) -> None:
    """Unnamed service accounts (`~unknown`) get turns beside a backlog; blocks waiting in the background do not."""
    async with lines(blocks) as ([line], _):
        behind = [ask(line, BlockHere(blocks, f"r{n}"), caller="renewal", background=True) for n in range(2)]
        backlog = [ask(line, BlockHere(blocks, f"b{n}"), caller="busy") for n in range(8)]
        strangers = [ask(line, BlockHere(blocks, f"u{n}"), caller="~unknown") for n in range(2)]
        assert all([isinstance(await task, Fetched) for task in strangers])
        assert not all(task.done() for task in backlog)
        assert not any(name.startswith("r") for name in blocks.named()[2:])
        assert all([isinstance(await task, Fetched) for task in (*backlog, *behind)])
    assert blocks.named()[-1].startswith("r")


async def test_cancelled_requests_cost_nothing(blocks: Blocks) -> None:
    """Of fifty blocks whose requests are cancelled none is fetched, and the next request is served at once."""
    async with lines(blocks) as ([line], [scheduler]):
        asked = [ask(line, BlockHere(blocks, f"b{n}")) for n in range(50)]
        await until(lambda: len(blocks.calls) == 2)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        ticked = await scheduler.tick(TickRequest(wants_board=True))
        assert ticked.board is not None
        await asyncio.sleep(0.25)
        assert len(blocks.calls) <= 3
        started_s = now_s()
        assert isinstance(await ask(line, BlockHere(blocks, "again")), Fetched)
        assert now_s() - started_s < 0.15


async def test_a_hopeless_wait_is_refused_at_once(blocks: Blocks) -> None:
    """At 2 in 100 ms the fortieth block waits two seconds: a patience of half a second is refused, with its place."""
    async with lines(blocks) as ([line], _):
        backlog = [ask(line, BlockHere(blocks, f"b{n}")) for n in range(40)]
        await until(lambda: len(blocks.calls) >= 2)
        started_s = now_s()
        refused = await ask(line, BlockHere(blocks, "late"), patience_s=0.5)
        assert now_s() - started_s < 0.3
        assert isinstance(refused, TooLong)
        assert 30 < refused.place <= 41
        assert 1 < refused.estimate_s < 4
        assert isinstance(await ask(line, BlockHere(blocks, "rare"), caller="y", patience_s=0.5), Fetched)
        for task in backlog:
            task.cancel()


async def test_patience_ends_in_line_but_not_in_a_call(blocks: Blocks) -> None:
    """After the patience has ended, a call in progress is still awaited, a place in line is given up."""
    blocks.took_s = 0.2
    async with lines(blocks, rules=RULES) as ([line], [scheduler]):
        assert isinstance(await ask(line, BlockHere(blocks, "a"), patience_s=0.05), Fetched)
        await scheduler.tick(TickRequest(quiet=True))
        assert isinstance(await ask(line, BlockHere(blocks, "b"), patience_s=0.05), TooLong)


async def test_waiting_blocks_are_bounded_for_each_caller(blocks: Blocks) -> None:
    """The bound counts blocks, not requests, and is each caller's own."""
    async with lines(blocks) as ([line], [scheduler]):
        await scheduler.tick(TickRequest(quiet=True))
        held = [ask(line, BlockHere(blocks, f"b{n}"), bound=3) for n in range(3)]
        await asyncio.sleep(0)
        assert await ask(line, BlockHere(blocks, "b3"), bound=3) == LineIsFull(
            bound=3, estimate_s=pytest.approx(0.1, abs=2)
        )
        assert isinstance(await ask(line, BlockHere(blocks, "b0"), bound=3), Fetched)
        assert isinstance(await ask(line, BlockHere(blocks, "b3"), caller="y", bound=3), Fetched)
        await asyncio.gather(*held)


async def test_closing_rejects_waiting_requests(blocks: Blocks) -> None:
    """Requests served by a call in progress get its result; others are rejected at once, so that another replica
    can serve them."""
    blocks.took_s = 0.2
    async with lines(blocks) as ([line], [scheduler]):
        asked = [ask(line, BlockHere(blocks, f"b{n}")) for n in range(5)]
        await until(lambda: len(blocks.calls) == 2)
        await line.aclose()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Fetched] * 2 + [ShuttingDown] * 3
        with pytest.raises(ShuttingDown):
            await line.fetch(BlockHere(blocks, "a"), caller="x", weight=1.0, patience_s=1, bound=1)
        ticked = await scheduler.tick(TickRequest(wants_board=True))
        assert ticked.board is not None
        assert not ticked.board.ranks
