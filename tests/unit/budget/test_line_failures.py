"""What a line does when calls fail, replicas die, or Redis is away."""

import asyncio

import pytest

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, TooLong
from service.budget.scheduler.interfaces import Begun, TickRequest, WaitingCount
from service.model.blocks import CachedBlock
from service.model.errors import StoreUnavailable, UpstreamTimeout, UpstreamUnreachable
from service.model.origin import FetchCost
from tests.queued_jobs import text_of
from tests.servers import until
from tests.unit.budget.lines import BlockHere, Blocks, ask, failing, lines, now_s


async def test_a_failed_call_is_retried_with_a_new_turn(blocks: Blocks) -> None:
    """Each try takes a slot, and is passed the attempt's number."""
    async with lines(blocks) as ([line], _):
        fetched = await ask(line, BlockHere(blocks, "a", failing(3)))
        assert isinstance(fetched, Fetched)
        assert text_of(fetched.value) == "try 4"
    times = [at for _, at in blocks.calls]
    assert len(times) == 4
    assert min(later - earlier for earlier, later in zip(times, times[2:], strict=False)) >= 0.1


async def test_the_cost_of_failed_and_cancelled_requests_is_recorded(blocks: Blocks) -> None:
    """Wait, calls and their time are added to the request's cost, also if it is refused, fails or hangs up."""
    blocks.took_s = 0.1
    failed, joined, cancelled, refused = FetchCost(), FetchCost(), FetchCost(), FetchCost()
    async with lines(blocks) as ([line], [scheduler]):
        await scheduler.tick(TickRequest(quiet=True))
        job = BlockHere(blocks, "a", failing(9, again=False))
        asked = [ask(line, job, cost=cost) for cost in (failed, joined)]
        await asyncio.wait(asked)
        assert all(isinstance(task.exception(), UpstreamTimeout) for task in asked)
        hanging = ask(line, BlockHere(blocks, "b"), cost=cancelled)
        await until(lambda: blocks.calls[-1][0] == "b")
        await asyncio.sleep(0.05)
        hanging.cancel()
        await asyncio.wait({hanging})
        await scheduler.tick(TickRequest(quiet=True))
        scheduler.slow_s = 0.03
        assert isinstance(await ask(line, BlockHere(blocks, "c"), patience_s=0.05, cost=refused), TooLong)
    assert (failed.calls, joined.calls, cancelled.calls, refused.calls) == (1, 0, 1, 0)
    assert min(failed.upstream_s, joined.upstream_s) >= 0.09
    assert cancelled.upstream_s >= 0.04
    assert failed.waited_s > 0.03  # the quiet window
    assert (refused.upstream_s, refused.waited_s) == (0.0, pytest.approx(0.03, abs=0.006))


async def test_a_final_failure_reaches_all_waiting_requests(blocks: Blocks) -> None:
    """Only the requests for the block get the error: another block of the same app is still fetched."""
    async with lines(blocks) as ([line], _):
        job = BlockHere(blocks, "a", failing(9, again=False))
        asked = [ask(line, job, caller=caller) for caller in "xyz"]
        other = ask(line, BlockHere(blocks, "b"))
        for task in asked:
            with pytest.raises(UpstreamTimeout):
                await task
        assert isinstance(await other, Fetched)
    assert blocks.named().count("a") == 1


async def test_the_line_survives_a_fault_of_its_scheduler(blocks: Blocks) -> None:
    """Impossible errors are logged; waiting requests are served or get the error, and the next one is served."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.fault = ZeroDivisionError()
        assert isinstance(await asyncio.wait_for(ask(line, BlockHere(blocks, "a")), 1), Fetched)
        scheduler.begin_fault, scheduler.grants = ZeroDivisionError(), False
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(ask(line, BlockHere(blocks, "b")), 1)
        assert isinstance(await asyncio.wait_for(ask(line, BlockHere(blocks, "c")), 1), Fetched)


async def test_a_stop_empties_the_line(blocks: Blocks) -> None:
    """If calls are stopped, for example by a wrong key, all waiting requests get the error."""
    async with lines(blocks) as ([line], _):
        asked = [ask(line, BlockHere(blocks, f"b{n}", failing(9, again=False, stop=True))) for n in range(20)]
        for task in asked:
            with pytest.raises(UpstreamTimeout):
                await task
    assert len(blocks.calls) <= 2


async def test_an_internal_error_frees_the_slot(blocks: Blocks) -> None:
    """An exception in a job is raised by the waiting requests, and the line continues."""

    def broken(attempt: int) -> str | CallFailed:
        raise ZeroDivisionError

    async with lines(blocks) as ([line], _):
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await ask(line, BlockHere(blocks, "a", broken))
        assert isinstance(await ask(line, BlockHere(blocks, "a")), Fetched)


async def test_a_joined_block_is_found_without_its_message(blocks: Blocks) -> None:
    """A replica that joins another's fetch looks for the block by itself if no message arrives."""
    blocks.took_s = 0.15
    async with lines(blocks, 2) as (made, schedulers):
        for scheduler in schedulers:
            scheduler.notifies = False
        first = ask(made[0], BlockHere(blocks, "a"))
        await until(lambda: bool(blocks.calls))
        second = await ask(made[1], BlockHere(blocks, "a"))
        assert isinstance(second, Fetched)
        assert second.joined
        await first
    assert blocks.named() == ["a"]


async def test_a_replica_that_dies_in_a_fetch_delays_it_by_its_lease(blocks: Blocks) -> None:
    """Requests that have joined wait in line again when the lease ends, and their replica then fetches."""
    async with lines(blocks, 2) as (made, schedulers):
        report = (WaitingCount(caller="x", weight=1.0, count=1, waited_ms=0),)
        [turn] = (await schedulers[0].tick(TickRequest(waiting=report))).turns
        beginning = await schedulers[0].begin(turn.id, block="a", known=b"")
        assert isinstance(beginning, Begun)
        await schedulers[0].tick(TickRequest())
        started_s = now_s()
        assert isinstance(await ask(made[1], BlockHere(blocks, "a")), Fetched)
        assert 0.2 < now_s() - started_s < 1.2
    assert blocks.named() == ["a"]


async def test_requests_wait_through_a_short_outage_of_redis(blocks: Blocks) -> None:
    """Waiting requests keep waiting, and are served when Redis is back."""
    async with lines(blocks, grace_s=2.0) as ([line], [scheduler]):
        scheduler.away = True
        asked = ask(line, BlockHere(blocks, "a"))
        await until(lambda: line.is_cut_off)
        scheduler.away = False
        assert isinstance(await asked, Fetched)
        assert not line.is_cut_off


async def test_a_long_outage_of_redis_fails_waiting_requests(blocks: Blocks) -> None:
    """After the grace period waiting requests get the error, and new ones at once; no call is made."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.away = True
        with pytest.raises(StoreUnavailable):
            await ask(line, BlockHere(blocks, "a"))
        started_s = now_s()
        with pytest.raises(StoreUnavailable):
            await ask(line, BlockHere(blocks, "a"))
        assert now_s() - started_s < 0.1
        assert not blocks.calls


async def test_a_slot_is_renewed_after_a_slow_connection(blocks: Blocks) -> None:
    """Transit counts from the sending: a call that was slow to connect renews its slot, and fails if that has
    expired."""

    class Slow(BlockHere):
        async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
            await asyncio.sleep(float(self.block_key))
            return await super().call(slot, attempt=attempt)

    async with lines(blocks) as ([line], _):
        assert isinstance(await ask(line, Slow(blocks, "0.08")), Fetched)
        slow = ask(line, Slow(blocks, "0.3"))
        others = [ask(line, BlockHere(blocks, f"b{n}")) for n in range(6)]
        with pytest.raises(UpstreamUnreachable):
            await slow
        await asyncio.gather(*others)


async def test_a_request_whose_patience_ends_during_a_failing_call_gets_its_error(blocks: Blocks) -> None:
    """The request has had a turn, so it gets the call's error; one with more patience gets the next call."""
    blocks.took_s = 0.3
    async with lines(blocks) as ([line], _):
        job = BlockHere(blocks, "a", failing(1))
        patient, impatient = ask(line, job, caller="x", patience_s=5.0), ask(line, job, caller="y", patience_s=0.1)
        with pytest.raises(UpstreamTimeout):
            await impatient
        assert isinstance(await patient, Fetched)
    assert blocks.named() == ["a", "a"]
