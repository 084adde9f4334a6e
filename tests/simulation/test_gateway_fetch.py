"""How a block is fetched, in virtual time: tries, pauses, short answers, purges during a call, and what is reported."""

import asyncio
import json
from collections.abc import Callable

import msgspec
import pytest

from service.budget.line.jobs import CallFailed
from service.gateway.fetch import FAILING_S
from service.model.blocks import NOTHING, CachedBlock, RefusedQuery
from service.model.errors import (
    QueryRefused,
    StoreUnavailable,
    Throttled,
    UpstreamBroken,
    UpstreamError,
    UpstreamHTTPStatus,
    UpstreamRefused,
    UpstreamTimeout,
)
from service.model.freshness import StaleReason
from service.model.pages import Source
from service.model.streams import TaskFilter
from service.upstream.call_events import UpstreamCall
from tests.simulation.fetching import KEY, Slot, Watched, block_at, fetching_of, job_of
from tests.simulation.sim_replica import ATTEMPTS, PAUSE_S
from tests.simulation.small_world import APP, LIFETIMES, RULES, WALL_S, SmallWorld, play


@pytest.mark.parametrize(
    ("error", "calls"),
    [
        (UpstreamTimeout("no answer", app=APP), ATTEMPTS),
        (UpstreamHTTPStatus(502, app=APP), ATTEMPTS),
        (UpstreamHTTPStatus(404, app=APP), 1),
        (UpstreamRefused(app=APP, code=60013, text="not built", advice=""), 2),
        (UpstreamBroken("nonsense", app=APP, repeats=True), 1),
        (QueryRefused(app=APP, code=90104, text="no such list", advice=""), 1),
    ],
    ids=["no answer", "a gateway of theirs", "not found", "not built", "nonsense", "a refusal"],
)
def test_the_number_of_tries_depends_on_the_error(error: UpstreamError, calls: int) -> None:
    """A few tries for transient errors, two for those that may pass, one for permanent ones; then the caller gets
    the error."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.fails = error
        with pytest.raises(type(error)):
            await world.page(patience_s=20)
        await asyncio.sleep(5)
        assert len(world.upstream.calls) == calls

    play(scene)


def test_an_upstream_that_throttles_pauses_all_calls_of_the_app() -> None:
    """No call for `pause_s` on any replica, then the next try; stale pages are served at once meanwhile."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.fails = Throttled(app=APP, code=60007, text="too often", advice="")
        asking = asyncio.create_task(world.page("a", patience_s=20))
        await asyncio.sleep(0.5)
        other = asyncio.create_task(world.page("b", replica=1, caller="d", patience_s=20))
        await asyncio.sleep(0.1)
        assert len(world.upstream.calls) == 1
        world.upstream.fails = None
        assert {(await asking).source, (await other).source} == {Source.FETCHED}
        first, *later = (call.sent_at_s for call in world.upstream.calls)
        assert min(later) - first >= PAUSE_S

    play(scene, replicas=2)


def test_a_throttled_call_pauses_within_bounds() -> None:
    """The upstream's `Retry-After` counts if it is longer than our pause, up to the bound; other errors don't pause."""

    async def scene(world: SmallWorld) -> None:
        fetching = fetching_of(world, Watched(), pause_max_s=30.0)
        for asked_s, pause_s in ((None, 2.0), (1.0, 2.0), (7.0, 7.0), (900.0, 30.0)):
            failed = fetching.failed(UpstreamHTTPStatus(429, app=APP, retry_after_s=asked_s), attempt=1)
            assert (failed.pause_s, failed.pause_reason, failed.again) == (pause_s, "throttled", True)
        assert not fetching.failed(UpstreamHTTPStatus(429, app=APP), attempt=3).again
        other = fetching.failed(UpstreamTimeout("no answer", app=APP), attempt=2)
        assert (other.pause_s, other.pause_reason, other.again, other.stop) == (0.0, "", True, False)
        assert not fetching.failed(UpstreamTimeout("no answer", app=APP), attempt=3).again

    play(scene)


def test_new_and_fresh_blocks_answer_a_waiting_request() -> None:
    """A block answers if it was fetched after the request arrived (clocks may be a second apart) or is fresh for
    it, but never if the request has seen it."""

    async def scene(world: SmallWorld) -> None:
        asked_s = world.loop.time()
        fetching = fetching_of(world, Watched())
        job, lenient = job_of(fetching, known=b"seen"), job_of(fetching, known=b"seen", is_fresh=True)

        def found(at_s: float, *, head: bytes = b"new", unfinished: bool = False) -> CachedBlock:
            return CachedBlock(stored=block_at(at_s, unfinished=unfinished), head=head)

        assert job.accepts(found(asked_s + 1))
        assert job.accepts(found(asked_s - 0.9))
        assert not job.accepts(found(asked_s - 1.1))
        assert lenient.accepts(found(asked_s - 100))
        for each in (job, lenient):
            assert not each.accepts(found(asked_s + 1, head=b"seen"))
            assert not each.accepts(found(asked_s + 1, unfinished=True))
            assert not each.accepts(NOTHING)
            assert not each.accepts(CachedBlock(stored=None, head=b"garbage"))

    play(scene)


def test_a_call_during_a_purge_is_repeated() -> None:
    """The result of a call during which the app was purged is never served: that of the next call is."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.goes_on.clear()
        asking = asyncio.create_task(world.page(patience_s=20))
        await asyncio.sleep(0.5)
        await world.replicas[0].gateway.drop(APP)
        world.upstream.goes_on.set()
        page = await asking
        assert {task["title"] for task in json.loads(b"[" + page.body + b"]")} == {"call 2"}
        for attempt in (2, 3):
            world.upstream.goes_on.clear()
            call = asyncio.create_task(job_of(fetching_of(world, Watched())).call(Slot(), attempt=attempt))
            await asyncio.sleep(0.5)
            await world.replicas[0].gateway.drop(APP)
            world.upstream.goes_on.set()
            outcome = await call
            assert isinstance(outcome, CallFailed)
            assert outcome.again is (attempt < 3)

    play(scene)


def test_a_failure_is_remembered_for_a_few_seconds_and_until_the_next_success() -> None:
    """Requests that can be served stale don't wait for a fetch in that time, and do afterwards."""

    async def scene(world: SmallWorld) -> None:
        await world.page()
        await asyncio.sleep(LIFETIMES.fresh_s + LIFETIMES.stale_while_revalidate_s + 1)
        world.upstream.fails = UpstreamHTTPStatus(404, app=APP)
        await world.page()
        fetching = world.replicas[0].apps[APP].list.fetching
        assert fetching.is_failing
        world.upstream.fails = None
        asked = await world.page()
        assert (asked.source, asked.stale_reason) == (Source.STALE, StaleReason.ERROR)
        await asyncio.sleep(1)
        assert not fetching.is_failing, "the renewal in the background has succeeded"
        world.upstream.fails = UpstreamHTTPStatus(404, app=APP)
        with pytest.raises(UpstreamHTTPStatus):
            await world.page("new")
        assert fetching.is_failing
        await asyncio.sleep(FAILING_S + 0.1)
        assert not fetching.is_failing

    play(scene)


@pytest.mark.parametrize(
    ("error", "result", "code"),
    [
        (None, "ok", None),
        (UpstreamTimeout("no answer", app=APP), "timeout", None),
        (UpstreamRefused(app=APP, code=60013, text="not built", advice=""), "answer_not_built", 60013),
    ],
)
def test_each_call_is_reported_with_its_payer_its_result_and_its_times(
    error: UpstreamError | None, result: str, code: int | None
) -> None:
    """Each call is reported once to every observer and to its trace; the slot is held before it."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.fails, world.upstream.connect_s, world.upstream.took_s = error, 0.5, 0.25
        watched, slot = Watched(), Slot()
        begun_s = world.loop.time()
        outcome = await job_of(fetching_of(world, watched)).call(slot, attempt=2)
        assert isinstance(outcome, CallFailed) is (error is not None)
        [end], [call] = watched.ends, watched.begun
        assert watched.traced == [end]
        assert end.call == call == UpstreamCall(app=APP, payer=Slot.payer, attempt=2)
        assert (end.result, end.code) == (result, code)
        assert end.took_s == pytest.approx(0.75)
        assert end.sent_at_s == pytest.approx(begun_s + 0.501, abs=0.01)
        assert world.upstream.calls[0].trace is watched
        assert slot.holds == 1

    play(scene)


def test_a_call_whose_slot_is_lost_is_not_sent() -> None:
    """A call whose slot is lost is reported without a time of sending, and fails like any other."""

    class Lost(Slot):
        async def hold(self) -> None:
            raise UpstreamTimeout("the slot was lost", app=APP)

    async def scene(world: SmallWorld) -> None:
        watched = Watched()
        outcome = await job_of(fetching_of(world, watched)).call(Lost(), attempt=1)
        assert isinstance(outcome, CallFailed)
        assert watched.ends[0].sent_at_s is None
        assert not world.upstream.calls

    play(scene)


def test_a_refusal_is_stored_in_place_of_the_block() -> None:
    """A refusal is stored with the upstream's own code and text, and the time of the answer."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.fails = QueryRefused(app=APP, code=90104, text="no such list", advice="")
        fetching = fetching_of(world, Watched())
        job = job_of(fetching)
        await job.call(Slot(), attempt=1)
        await job.keep()
        stored = (await fetching.cache.look(KEY)).stored
        assert isinstance(stored, RefusedQuery)
        assert (stored.code, stored.text) == (90104, "no such list")
        assert stored.fetched_at_ms == pytest.approx((WALL_S + world.loop.time()) * 1000, abs=100)

    play(scene)


def test_a_relative_range_is_resolved_when_the_block_is_fetched() -> None:
    """The page has the range that was sent: aligned to the configured seconds, not to the time of the request."""

    async def scene(world: SmallWorld) -> None:
        page = await world.page()
        now_s = WALL_S + world.loop.time()
        assert page.range.until_s % 60 == 0
        assert now_s - 61 < page.range.until_s <= now_s
        assert page.range.until_s - page.range.since_s == 3600
        assert page.fetched_at_ms == pytest.approx(now_s * 1000, abs=100)

    play(scene)


def test_a_store_that_fails_does_not_cost_the_page() -> None:
    """A block that can't be stored in Redis is served, and kept in memory."""

    async def scene(world: SmallWorld) -> None:
        fail: Callable[..., object] = _refuse
        world.replicas[0].store.put_all = fail  # type: ignore[method-assign,assignment]
        assert (await world.page()).source is Source.FETCHED
        assert (await world.page()).source is Source.HIT

    play(scene)


async def _refuse(*_: object, **__: object) -> None:
    raise StoreUnavailable("out of memory")


@pytest.mark.parametrize(("calls", "together"), [(3, 2), (2, 1)])
def test_a_filtered_page_fetches_two_blocks_at_a_time_if_two_slots_are_free(calls: int, together: int) -> None:
    """With fewer free slots it fetches one after the other, and leaves the rest to others."""
    rules = msgspec.structs.replace(RULES, calls=calls)

    async def scene(world: SmallWorld) -> None:
        world.upstream.took_s = 0.1
        page = await world.page(only=TaskFilter(statuses=("dispatched",)), patience_s=30)
        assert page.total == 0
        sent_s = [call.sent_at_s for call in world.upstream.calls]
        assert len(sent_s) == 4
        assert sum(at_s - sent_s[1] < 0.05 for at_s in sent_s[1:]) == together

    play(scene, rules=rules)
