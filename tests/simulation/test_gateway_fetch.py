"""How a block is fetched, in virtual time: tries, pauses, short answers, purges during a call, and what is reported."""

import asyncio
import json
from collections.abc import Callable

import msgspec
import pytest

from service.budget.line.jobs import CallFailed, Payer
from service.gateway.call_events import Call, CallEnd
from service.gateway.fetch import FAILING_S, BlockJob, Fetching
from service.gateway.list_calls import FILL_CALLS_MAX, FILL_WITHIN_S, ListCalls
from service.model.blocks import NOTHING, Block, CachedBlock, RefusedQuery
from service.model.cache_keys import BlockKey
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
from service.model.origin import NOBODY
from service.model.pages import Source
from service.model.queries import Range
from service.model.streams import Only
from service.upstream.apps import UpstreamApp
from tests.simulation.sim_replica import ATTEMPTS, BLOCK_SIZE, PAUSE_S
from tests.simulation.small_world import APP, LIFETIMES, RULES, WALL_S, SmallWorld, play, query_of

KEY = BlockKey(query=query_of("direct"), index=0)


class Slot:
    """A slot that is held when it is asked for; `holds` counts that."""

    payer = Payer(caller="c", origin=NOBODY, waited_s=0.25)

    def __init__(self) -> None:
        self.holds = 0

    async def hold(self) -> None:
        """Count."""
        self.holds += 1


class Watched:
    """Records what a fetching tells its observers."""

    def __init__(self) -> None:
        self.ends: list[CallEnd] = []
        self.begun: list[Call] = []
        self.traced: list[CallEnd] = []
        self.fields = (("traceparent", "00-abc-def-01"),)

    def begin(self, call: Call) -> "Watched":
        """See `Tracing.begin`."""
        self.begun.append(call)
        return self

    def sends(self, method: str, url: str) -> None:
        """See `CallTrace.sends`."""

    def answered(self, status: int) -> None:
        """See `CallTrace.answered`."""

    def end(self, end: CallEnd) -> None:
        """See `Trace.end`."""
        self.traced.append(end)


def fetching_of(world: SmallWorld, watched: Watched, *, replica: int = 0, pause_max_s: float = 60.0) -> Fetching:
    """Return a fetching of the app on a replica's cache, outside the line."""
    app = UpstreamApp(name=APP, sdkappid=1, admin="a", hosts=())
    cache = world.replicas[replica].cache

    def clock() -> float:
        return WALL_S + world.loop.time()

    return Fetching(
        app=app,
        calls=ListCalls(app, world.upstream, cache, block_size=BLOCK_SIZE, align_s=60, clock=clock),
        stops=world.upstream,
        cache=cache,
        attempts=3,
        pause_s=2.0,
        pause_max_s=pause_max_s,
        clock=clock,
        on_call=(watched.ends.append,),
        tracing=watched,
    )


def job_of(
    fetching: Fetching, *, known: bytes = b"", is_fresh: bool = False, seen: CachedBlock | None = None
) -> BlockJob:
    """Return a job for the first block of a list, of a request that has seen a block, or only the head of one."""
    seen = seen or CachedBlock(stored=None, head=known)
    return BlockJob(fetching, KEY, caller="c", seen=seen, is_fresh=lambda _: is_fresh)


def block_at(fetched_at_s: float, *, unfinished: bool = False) -> Block:
    """Return an empty block that was fetched at a virtual time."""
    return Block(
        fetched_at_ms=int((WALL_S + fetched_at_s) * 1000),
        range=Range(since_s=0, until_s=1),
        total=0,
        settled=False,
        ends=(),
        body=b"",
        unfinished=unfinished,
    )


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
def test_an_error_is_tried_again_as_often_as_it_is_worth(error: UpstreamError, calls: int) -> None:
    """A few times for what passes, twice for what may, once for what stays; then the caller gets the error."""

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


def test_a_throttled_call_asks_for_a_pause_within_its_bounds() -> None:
    """The upstream's `Retry-After` counts where it is longer than ours, up to the bound; other errors don't pause."""

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


def test_an_upstream_that_gives_fewer_than_asked_for_is_asked_for_the_rest() -> None:
    """Four at a time fill a block of ten by three calls, each for what is missing; the page is whole, nothing twice."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 4
        page = await world.page(patience_s=20)
        assert [task["id"] for task in json.loads(b"[" + page.body + b"]")] == list(range(10))
        assert [(call.offset, call.want) for call in world.upstream.calls] == [(0, 10), (4, 6), (8, 2)]
        assert (page.missing, page.consistent, page.source) == (0, True, Source.FETCHED)
        assert world.replicas[0].apps[APP].list.fetching._calls.short_answers == 2  # type: ignore[attr-defined]
        last = await world.page(offset=30, patience_s=20)
        assert [(call.offset, call.want) for call in world.upstream.calls[3:]] == [(30, 10), (34, 6)]
        assert last.missing == 0

    play(scene)


def test_an_upstream_that_gives_nothing_of_what_it_counts_is_believed_after_one_call() -> None:
    """The page tells how many are missing."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 0
        page = await world.page(limit=7)
        assert (page.missing, page.total, page.body) == (7, 35, b"")
        assert len(world.upstream.calls) == 1
        assert (await world.page(limit=7)).source is Source.HIT

    play(scene)


def test_a_block_is_filled_by_a_bounded_number_of_calls() -> None:
    """What the last of them leaves open is served with what is missing."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 1
        fetching = fetching_of(world, Watched())
        assert isinstance(await job_of(fetching).call(Slot(), attempt=FILL_CALLS_MAX - 1), CallFailed)
        outcome = await job_of(fetching).call(Slot(), attempt=FILL_CALLS_MAX)
        assert isinstance(outcome, CachedBlock)
        assert isinstance(outcome.stored, Block)
        assert (outcome.stored.unfinished, outcome.stored.received) == (False, 2)

    play(scene)


@pytest.mark.parametrize(("waits_s", "offset"), [(FILL_WITHIN_S - 1, 4), (FILL_WITHIN_S + 1, 0)])
def test_a_part_of_a_block_is_continued_only_while_it_is_new(waits_s: float, offset: int) -> None:
    """Another replica goes on where a call has ended, but makes no block of parts that are far apart."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 4
        await job_of(fetching_of(world, Watched())).call(Slot(), attempt=1)
        await asyncio.sleep(waits_s)
        other = fetching_of(world, Watched(), replica=1)
        await job_of(other, seen=await other.cache.get(KEY)).call(Slot(), attempt=1)
        assert world.upstream.calls[-1].offset == offset

    play(scene, replicas=2)


def test_without_redis_a_part_in_memory_is_continued_and_otherwise_the_block_begins_anew() -> None:
    """A store that fails is no reason to make no call."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 4
        await job_of(fetching_of(world, Watched())).call(Slot(), attempt=1)
        other = fetching_of(world, Watched(), replica=1)
        seen = await other.cache.get(KEY)
        other.cache.forget(APP)
        world.redis.is_away = True
        await job_of(fetching_of(world, Watched())).call(Slot(), attempt=2)
        await job_of(other, seen=seen).call(Slot(), attempt=1)
        assert [call.offset for call in world.upstream.calls] == [0, 4, 0]
        world.redis.is_away = False

    play(scene, replicas=2)


def test_a_part_of_a_block_answers_nobody() -> None:
    """The job of a part is a failed call that is worth another one, and names the part that it has stored."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 4
        job = job_of(fetching_of(world, Watched()), is_fresh=True)
        outcome = await job.call(Slot(), attempt=1)
        assert isinstance(outcome, CallFailed)
        assert (outcome.again, outcome.stop) == (True, False)
        found = await job.look()
        assert found.head == outcome.head != b""
        assert not job.accepts(found)

    play(scene)


def test_which_blocks_answer_a_request_that_waits() -> None:
    """One fetched since it came (clocks may be a second apart), or fresh for it; never the one it has seen."""

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


def test_a_purge_during_a_call_makes_it_be_made_again() -> None:
    """What was on its way when the app was purged is served to nobody: the next call's answer is."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.goes_on.clear()
        asking = asyncio.create_task(world.page(patience_s=20))
        await asyncio.sleep(0.5)
        await world.replicas[0].gateway.drop(APP)
        world.upstream.goes_on.set()
        page = await asking
        assert {task["title"] for task in json.loads(b"[" + page.body + b"]")} == {"call 2"}
        fetching = fetching_of(world, Watched())
        assert fetching.dropped(attempt=2).again
        assert not fetching.dropped(attempt=3).again

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
    """Once to every observer and to its trace, which goes with the call; the slot is held before it."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.fails, world.upstream.connect_s, world.upstream.took_s = error, 0.5, 0.25
        watched, slot = Watched(), Slot()
        begun_s = world.loop.time()
        outcome = await job_of(fetching_of(world, watched)).call(slot, attempt=2)
        assert isinstance(outcome, CallFailed) is (error is not None)
        [end], [call] = watched.ends, watched.begun
        assert watched.traced == [end]
        assert end.call == call == Call(app=APP, payer=Slot.payer, attempt=2)
        assert (end.result, end.code) == (result, code)
        assert end.took_s == pytest.approx(0.75)
        assert end.sent_at_s == pytest.approx(begun_s + 0.501, abs=0.01)
        assert world.upstream.calls[0].trace is watched
        assert slot.holds == 1

    play(scene)


def test_a_call_whose_slot_is_lost_is_not_sent() -> None:
    """It is reported without a time of sending, and fails like any other."""

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


def test_a_refusal_is_stored_in_the_blocks_place() -> None:
    """With the upstream's own code and text, and the time of the answer."""

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
    """The page says which range was asked for: aligned to the configured seconds, not to the request's."""

    async def scene(world: SmallWorld) -> None:
        page = await world.page()
        now_s = WALL_S + world.loop.time()
        assert page.range.until_s % 60 == 0
        assert now_s - 61 < page.range.until_s <= now_s
        assert page.range.until_s - page.range.since_s == 3600
        assert page.fetched_at_ms == pytest.approx(now_s * 1000, abs=100)

    play(scene)


def test_a_store_that_fails_does_not_cost_the_page() -> None:
    """A block that can't be stored in Redis is served and remembered all the same."""

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
        page = await world.page(only=Only(statuses=("dispatched",)), patience_s=30)
        assert page.total == 0
        sent_s = [call.sent_at_s for call in world.upstream.calls]
        assert len(sent_s) == 4
        assert sum(at_s - sent_s[1] < 0.05 for at_s in sent_s[1:]) == together

    play(scene, rules=rules)
