"""How requests wait in a line, in virtual time: when it ticks, in which order they are served, and which are
refused."""

import asyncio

import pytest

from service.budget.line.jobs import Fetched, LineIsFull, TooLong
from service.budget.line.line import HEARTBEAT_S, LOOKER_S, SPACING_S, Line
from service.budget.scheduler.interfaces import TickRequest
from tests.simulation.scripted_line import RULES, WAY_S, Block, Scripted, ask, in_a_line, now_s


def test_many_arrivals_cost_a_tick_every_few_milliseconds() -> None:
    """However many requests arrive, ticks keep their distance."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        asked = []
        for number in range(200):
            asked.append(ask(line, Block(f"b{number}"), caller=f"c{number}"))
            await asyncio.sleep(0.0005)
        apart = [later - earlier for earlier, later in zip(scheduler.ticks, scheduler.ticks[1:], strict=False)]
        assert min(apart) >= SPACING_S
        assert len(scheduler.ticks) <= 0.1 / SPACING_S + 2
        for task in asked:
            task.cancel()

    in_a_line(scene)


def test_a_waiting_replica_ticks_four_times_a_second_if_nothing_is_due() -> None:
    """Its report stays valid, and is not renewed needlessly."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await scheduler.done(0, block="", pause_ms=20_000, pause_reason="throttled")
        asking = ask(line, Block(), patience_s=60)
        await asyncio.sleep(0.5)
        assert scheduler.boards == 1, "what it takes to judge the request is asked for once"
        scheduler.ticks.clear()
        await asyncio.sleep(10)
        assert scheduler.boards == 1
        assert 10 / HEARTBEAT_S - 2 <= len(scheduler.ticks) <= 10 / HEARTBEAT_S + 2
        asking.cancel()

    in_a_line(scene)


def test_a_wait_that_ends_gives_up_its_place_and_its_turn() -> None:
    """The next tick reports it; the turn that comes too late is given back and serves another request."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        gone = ask(line, Block("gone"))
        while not scheduler.ticks:
            await asyncio.sleep(WAY_S / 4)
        gone.cancel()
        await asyncio.sleep(0.1)
        assert line.waiting() == ()
        assert line.turn_ends == {("x", "returned"): 1}
        assert not scheduler.begins
        assert not line.wants("gone")
        asked_s = now_s()
        got = await asyncio.gather(*(ask(line, Block(f"b{number}")) for number in range(RULES.calls)))
        assert all(isinstance(each, Fetched) for each in got)
        assert now_s() - asked_s < 0.1

    in_a_line(scene)


def test_the_line_of_one_caller_is_in_order() -> None:
    """Its blocks are fetched in the order of its requests, and one requested twice keeps its first place."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await scheduler.tick(TickRequest(quiet=True))
        blocks = [Block(f"b{number}") for number in range(5)]
        asked = [ask(line, block) for block in blocks]
        await asyncio.sleep(0)
        again = ask(line, blocks[0])
        await asyncio.gather(*asked, again)
        times = [block.calls[0] for block in blocks]
        assert times == sorted(times)
        assert [len(block.calls) for block in blocks] == [1] * 5

    in_a_line(scene)


def test_a_new_request_is_judged_by_a_new_board_and_at_once() -> None:
    """Within a heartbeat of the last board no tick is needed to refuse what comes too late."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        backlog = [ask(line, Block(f"b{number}"), patience_s=60) for number in range(30)]
        await asyncio.sleep(0.02)
        ticks = len(scheduler.ticks)
        refused = await ask(line, Block("late"), patience_s=2.0)
        assert isinstance(refused, TooLong)
        assert refused.place >= 28
        assert refused.estimate_s > 2.0
        assert len(scheduler.ticks) <= ticks + 1
        full = await ask(line, Block("more"), patience_s=60, bound=5)
        assert full == LineIsFull(bound=5, estimate_s=full.estimate_s if isinstance(full, LineIsFull) else -1)
        assert isinstance(await ask(line, Block("b0"), patience_s=60, bound=5), Fetched)
        for task in backlog:
            task.cancel()

    in_a_line(scene)


def test_a_pause_refuses_requests_that_can_not_outwait_it() -> None:
    """Requests with too little patience are refused at the next tick, not at the end of their patience; others wait."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await asyncio.gather(*(ask(line, Block(f"a{number}")) for number in range(RULES.calls)))
        short, long = ask(line, Block("short"), patience_s=3), ask(line, Block("long"), patience_s=30)
        await asyncio.sleep(0.1)
        await scheduler.done(0, block="", pause_ms=10_000, pause_reason="throttled")
        paused_s = now_s()
        assert isinstance(await short, TooLong)
        assert now_s() - paused_s < 1.0
        assert isinstance(await long, Fetched)
        assert now_s() - paused_s >= 10.0

    in_a_line(scene)


def test_a_look_at_a_scheduler_that_hangs_ends() -> None:
    """After a second the look returns no board; the next one that is answered returns it."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.hangs.clear()
        await asyncio.sleep(1)
        asked_s = now_s()
        assert await line.look() is None
        assert now_s() - asked_s == pytest.approx(LOOKER_S, abs=0.01)
        scheduler.hangs.set()
        await asyncio.sleep(1)
        looked = await line.look()
        assert looked is not None
        assert looked.board is not None

    in_a_line(scene)


def test_before_the_first_tick_nothing_is_known_of_waits_and_pauses() -> None:
    """Before the first tick no estimate is given, and no request is refused for one."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        new = Line(scheduler, app="shop", rules=RULES)
        assert (new.pause_s(), new.estimate_s("x", 1.0, 1)) == (0.0, 0.0)
        assert (line.pause_s(), line.estimate_s("x", 1.0, 1)) == (0.0, 0.0)

    in_a_line(scene)


def test_the_age_of_the_last_answer_is_reported() -> None:
    """`seen_s` counts from the last answer."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        assert isinstance(await ask(line, Block()), Fetched)
        await asyncio.sleep(5)
        assert line.seen_s() == pytest.approx(now_s() - scheduler.ticks[-1] - WAY_S, abs=0.01)

    in_a_line(scene)


def test_a_report_says_how_many_blocks_each_caller_waits_for_and_since_when() -> None:
    """Its oldest place counts; a block that is being called for does not."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await scheduler.tick(TickRequest(quiet=True))
        asked = [ask(line, Block("a"), caller="x")]
        await asyncio.sleep(0.3)
        asked += [ask(line, Block("b"), caller="x"), ask(line, Block("c"), caller="y")]
        await asyncio.sleep(0.2)
        assert [(row.caller, row.count, row.waited_ms) for row in line.waiting()] == [("x", 2, 500), ("y", 1, 200)]
        await asyncio.gather(*asked)
        calling = ask(line, Block("d", took_s=1.0))
        await asyncio.sleep(1.0)
        assert line.waiting() == ()
        await calling

    in_a_line(scene)


@pytest.mark.parametrize("pause_ms", [0, 5_000])
def test_an_estimate_shrinks_as_time_passes_between_two_ticks(pause_ms: int) -> None:
    """Of the time to the next free slot, and of a pause."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await scheduler.tick(TickRequest(quiet=True))
        await scheduler.done(0, block="", pause_ms=pause_ms, pause_reason="throttled")
        asking = ask(line, Block(), patience_s=60)
        await asyncio.sleep(0.05)
        ticks, first_s = len(scheduler.ticks), line.estimate_s("y", 1.0, 1)
        await asyncio.sleep(0.15)
        assert len(scheduler.ticks) == ticks
        assert first_s - line.estimate_s("y", 1.0, 1) == pytest.approx(0.15, abs=0.002)
        asking.cancel()

    in_a_line(scene)
