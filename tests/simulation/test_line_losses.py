"""A line's reactions to lost answers, failed calls, outages and its own end, in virtual time."""

import asyncio

import pytest

from service.budget.line.jobs import CallFailed, Fetched
from service.budget.line.line import Line
from service.budget.line.turns import DONE_AGAIN_S
from service.budget.scheduler.interfaces import Ticked, TickRequest
from service.model.errors import ShuttingDown, StoreUnavailable, UpstreamTimeout
from tests.simulation.scripted_line import WAY_S, Block, Scripted, ask, in_a_line, now_s


def test_a_begin_without_an_answer_is_sent_once_more() -> None:
    """The same turn begins again, and the call is made with it: no slot is lost."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.lost_begins = 1
        assert isinstance(await ask(line, Block()), Fetched)
        assert len(scheduler.begins) == 2
        assert len(set(scheduler.begins)) == 1
        assert line.turn_ends == {("x", "used"): 1}

    in_a_line(scene)


def test_a_begin_whose_answers_are_lost_is_ended() -> None:
    """The end of a fetch that may have begun is sent, so that its block is not held; the request waits again."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.lost_begins = 2
        asked_s = now_s()
        assert isinstance(await ask(line, Block()), Fetched)
        assert now_s() - asked_s < 0.2
        assert line.turn_ends == {("x", "lost"): 1, ("x", "used"): 1}
        assert len(scheduler.dones) == 2

    in_a_line(scene)


def test_the_end_of_a_fetch_is_retried_with_growing_pauses() -> None:
    """The request has its block at once; its turn is not used a second time meanwhile; after five tries the line
    gives up."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.lost_dones = 100
        asked_s = now_s()
        assert isinstance(await ask(line, Block()), Fetched)
        assert now_s() - asked_s < 0.1
        await asyncio.sleep(10)
        apart = [later - earlier for earlier, later in zip(scheduler.dones, scheduler.dones[1:], strict=False)]
        assert apart == pytest.approx([DONE_AGAIN_S * 2**n + WAY_S for n in range(4)], abs=0.01)
        scheduler.lost_dones = 1
        scheduler.dones.clear()
        assert isinstance(await ask(line, Block("c")), Fetched)
        assert scheduler.wishes[-1].in_use == ()
        await asyncio.sleep(5)
        assert len(scheduler.dones) == 2

    in_a_line(scene)


def test_a_wish_names_the_turns_in_use() -> None:
    """Both a turn whose call is under way and one whose end has not reached the scheduler, so that none is taken for
    the wish."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.lost_dones = 100
        assert isinstance(await ask(line, Block("ended")), Fetched)
        await asyncio.sleep(0.2)
        under_way = ask(line, Block("under way", took_s=2.0))
        await asyncio.sleep(0.2)
        asked = ask(line, Block("new"))
        await asyncio.sleep(0.2)
        assert scheduler.wishes[-1].block == Block("new").block_key
        assert set(scheduler.wishes[-1].in_use) == set(scheduler.begins[:2])
        await asyncio.gather(under_way, asked)

    in_a_line(scene)


def test_a_failed_call_is_retried_for_requests_with_patience_left() -> None:
    """Requests whose patience has ended get the error at once; none waits longer than its patience and a call."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block(took_s=2.0)
        block.failures = [CallFailed(error=UpstreamTimeout("no answer", app="shop"), again=True)]
        asked_s = now_s()
        patient, impatient = ask(line, block, caller="p"), ask(line, block, caller="i", patience_s=1.0)
        with pytest.raises(UpstreamTimeout):
            await impatient
        assert now_s() - asked_s == pytest.approx(2.0, abs=0.05)
        assert isinstance(await patient, Fetched)
        assert len(block.calls) == 2
        assert block.kept == 1
        assert len(scheduler.dones) == 2

    in_a_line(scene)


def test_a_call_that_stored_a_part_lets_the_next_one_know_it() -> None:
    """The part's head goes with the next `begin`, or that would only find the part."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        error = UpstreamTimeout("a part only", app="shop")
        block.failures = [CallFailed(error=error, head=b"part", again=True)]
        assert isinstance(await ask(line, block), Fetched)
        assert scheduler.knowns == [b"", b"part"]

    in_a_line(scene)


def test_a_stop_fails_waiting_requests_but_not_a_call_under_way() -> None:
    """If calls are stopped, waiting requests get the error; those that wait for a call under way get its result."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        error = UpstreamTimeout("wrong key", app="shop")
        stops, goes_on = Block("stops"), Block("goes on", took_s=1.0)
        stops.failures = [CallFailed(error=error, stop=True)]
        going, stopping = ask(line, goes_on), ask(line, stops)
        behind = [ask(line, Block(f"b{number}")) for number in range(5)]
        for task in (stopping, *behind):
            with pytest.raises(UpstreamTimeout):
                await task
        assert isinstance(await going, Fetched)
        del scheduler

    in_a_line(scene)


def test_a_closing_line_ends_its_fetches() -> None:
    """Waiting requests are refused, a call under way serves, its end is sent, and no further turn is used."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        called = Block("called", took_s=1.0)
        called.failures = [CallFailed(error=UpstreamTimeout("no answer", app="shop"), again=True)]
        serving = Block("serving", took_s=1.5)
        asked = [ask(line, called), ask(line, serving)]
        await asyncio.sleep(0.1)
        waiting = [ask(line, Block(f"b{number}")) for number in range(3)]
        await asyncio.sleep(0.1)
        await line.aclose()
        got = await asyncio.gather(*asked, *waiting, return_exceptions=True)
        assert [type(each) for each in got] == [UpstreamTimeout, Fetched] + [ShuttingDown] * 3
        assert len(scheduler.dones) == 2
        with pytest.raises(ShuttingDown):
            await ask(line, Block("new"))
        ended = len(scheduler.ticks)
        await asyncio.sleep(5)
        assert len(scheduler.ticks) == ended

    in_a_line(scene)


def test_an_outage_is_waited_out_for_the_grace_period_and_not_longer() -> None:
    """After the grace period waiting requests get the error at once; a call under way continues."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        calling = ask(line, Block("calling", took_s=5.0))
        await asyncio.sleep(0.1)
        step, down_s = scheduler.tick, now_s()

        async def away(_: TickRequest) -> Ticked:
            raise StoreUnavailable("unreachable")

        scheduler.tick = away  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await ask(line, Block("waiting"))
        assert now_s() - down_s == pytest.approx(2.0, abs=0.3)
        assert line.is_cut_off
        assert isinstance(await calling, Fetched)
        scheduler.tick = step  # type: ignore[method-assign]
        await asyncio.sleep(1.5)
        assert not line.is_cut_off, "the outage is noticed although no request waits"

    in_a_line(scene, grace_s=2.0)


def test_the_end_of_a_call_carries_the_pause_of_the_upstream() -> None:
    """No call is made before the pause is over; a call that succeeded, or failed otherwise, causes none."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        error = UpstreamTimeout("no answer", app="shop")
        block.failures = [
            CallFailed(error=error, again=True, pause_s=1.5, pause_reason="throttled"),
            CallFailed(error=error, again=True),
        ]
        assert isinstance(await ask(line, block), Fetched)
        assert scheduler.pauses == [(1500, "throttled"), (0, ""), (0, "")]
        assert block.calls[1] - block.calls[0] == pytest.approx(1.55, abs=0.05)
        assert line.pause_s() == 0.0

    in_a_line(scene)
