"""What callers get from a gateway, in virtual time: which answer, how old, after how long, and by how many calls."""

import asyncio
import json

import msgspec
import pytest

from service.budget.scheduler.interfaces import Rules
from service.model.errors import (
    CallsStopped,
    LineFull,
    NothingStored,
    QueryRefused,
    UnknownApp,
    UpstreamHTTPStatus,
    UpstreamTimeout,
    WaitTooLong,
)
from service.model.freshness import CacheDirectives, StaleReason
from service.model.pages import Forward, Page, Source
from tests.simulation.small_world import APP, LIFETIMES, NO_CACHE, RULES, SmallWorld, play

FRESH_S = LIFETIMES.fresh_s
RENEWED_S = FRESH_S + LIFETIMES.stale_while_revalidate_s
REFUSED = QueryRefused(app=APP, code=90104, text="no such list", advice="")
STOPPED = CallsStopped(app=APP, code=70003, text="wrong signature", advice="", stopped_for_s=30)


def tasks(page: Page) -> list[int]:
    """Return the ids of a page's tasks."""
    return [task["id"] for task in json.loads(b"[" + page.body + b"]")]


def titles(page: Page) -> set[str]:
    """Return the calls that a page's tasks came from."""
    return {task["title"] for task in json.loads(b"[" + page.body + b"]")}


def test_a_page_is_fetched_once_and_then_a_hit_until_it_is_stale() -> None:
    """The same page costs one call within its lifetime, is renewed in the background after it, and then fresh again."""

    async def scene(world: SmallWorld) -> None:
        first = await world.page()
        assert (first.source, first.forward, first.lifetime_s) == (Source.FETCHED, Forward.MISS, FRESH_S)
        await asyncio.sleep(FRESH_S - 0.2)
        again = await world.page()
        assert (again.source, again.forward, again.budget) == (Source.HIT, None, None)
        assert len(world.upstream.calls) == 1
        await asyncio.sleep(0.3)
        stale = await world.page()
        assert (stale.source, stale.stale_reason, stale.forward) == (Source.STALE, StaleReason.RENEWING, None)
        await asyncio.sleep(1)
        assert len(world.upstream.calls) == 2
        renewed = await world.page()
        assert (renewed.source, titles(renewed)) == (Source.HIT, {"call 2"})
        assert world.replicas[0].gateway.lookups == {"none": 1, "memory": 2, "stale": 1}

    play(scene)


def test_many_stale_answers_cost_one_renewal() -> None:
    """However many requests get the stale page, on whichever replica, it is renewed by one call."""

    async def scene(world: SmallWorld) -> None:
        await world.page()
        await asyncio.sleep(FRESH_S + 1)
        world.upstream.took_s = 0.5
        got = await asyncio.gather(*(world.page(replica=number % 2, caller=f"c{number}") for number in range(20)))
        assert {page.source for page in got} == {Source.STALE}
        await asyncio.sleep(2)
        assert len(world.upstream.calls) == 2

    play(scene, replicas=2)


def test_a_page_from_another_replica_is_found_in_redis() -> None:
    """It is a hit from Redis the first time, from this replica's memory the second."""

    async def scene(world: SmallWorld) -> None:
        await world.page(replica=0)
        assert (await world.page(replica=1)).source is Source.HIT
        reads = world.redis_calls("get", replica=1)
        assert (await world.page(replica=1)).source is Source.HIT
        assert world.redis_calls("get", replica=1) == reads
        assert world.replicas[1].gateway.lookups == {"redis": 1, "memory": 1}
        assert len(world.upstream.calls) == 1

    play(scene, replicas=2)


def test_a_caller_may_wait_for_no_more_blocks_than_its_own_bound() -> None:
    """The caller's own bound ends in `LineFull`, with that bound and a wait of a second or more."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.goes_on.clear()
        waiting = [asyncio.create_task(world.page(f"q{number}", waiting_max=2)) for number in range(2)]
        await asyncio.sleep(0.5)
        with pytest.raises(LineFull) as full:
            await world.page("q2", waiting_max=2)
        assert full.value.bound == 2
        assert full.value.retry_after_s is not None
        assert full.value.retry_after_s >= 1
        assert full.value.budget is not None
        third = asyncio.create_task(world.page("q2", waiting_max=3))
        other = asyncio.create_task(world.page("q3", caller="other", waiting_max=1))
        await asyncio.sleep(0.5)
        world.upstream.goes_on.set()
        assert {page.source for page in await asyncio.gather(*waiting, third, other)} == {Source.FETCHED}

    play(scene)


def test_a_query_that_is_refused_is_not_answered_stale() -> None:
    """When the upstream refuses what it once listed, callers get the refusal, at once and without further calls."""

    async def scene(world: SmallWorld) -> None:
        await world.page()
        await asyncio.sleep(RENEWED_S + 1)
        world.upstream.fails = REFUSED
        with pytest.raises(QueryRefused) as refused:
            await world.page()
        assert (refused.value.code, refused.value.text) == (90104, "no such list")
        for _ in range(3):
            with pytest.raises(QueryRefused):
                await world.page()
        assert len(world.upstream.calls) == 2
        await asyncio.sleep(LIFETIMES.refusal_s + 0.1)
        world.upstream.fails = None
        assert (await world.page()).source is Source.FETCHED

    play(scene)


@pytest.mark.parametrize(
    ("error", "reason", "forward"),
    [
        (UpstreamHTTPStatus(404, app=APP), StaleReason.ERROR, Forward.STALE),
        (UpstreamTimeout("no answer", app=APP), StaleReason.ERROR, Forward.STALE),
        (STOPPED, StaleReason.ERROR, Forward.STALE),
    ],
    ids=["an HTTP status", "no answer", "a stop"],
)
def test_an_upstream_that_fails_is_covered_by_what_is_stale(
    error: Exception, reason: StaleReason, forward: Forward
) -> None:
    """Up to `stale_if_error_s`, and the answer says that a call was made; after that callers get the error."""

    async def scene(world: SmallWorld) -> None:
        await world.page()
        await asyncio.sleep(RENEWED_S + 1)
        world.upstream.fails = error
        stale = await world.page(patience_s=10)
        assert (stale.source, stale.stale_reason, stale.forward) == (Source.STALE, reason, forward)
        at_once_s = world.loop.time()
        again = await world.page(patience_s=10)
        assert (again.source, again.forward) == (Source.STALE, None)
        assert world.loop.time() - at_once_s < 0.05, "the next request does not wait for the next failure"
        await asyncio.sleep(LIFETIMES.stale_if_error_s)
        with pytest.raises(type(error)) as raised:
            await world.page(patience_s=10)
        assert raised.value.budget is not None  # type: ignore[attr-defined]

    play(scene)


def test_while_calls_are_stopped_none_is_made() -> None:
    """What is stale is served without a call, what is not stored fails with the reason; nothing waits in line."""

    async def scene(world: SmallWorld) -> None:
        await world.page()
        await asyncio.sleep(FRESH_S + 1)
        world.upstream.stops = STOPPED
        stale = await world.page()
        assert (stale.source, stale.stale_reason) == (Source.STALE, StaleReason.RENEWING)
        await asyncio.sleep(LIFETIMES.stale_while_revalidate_s)
        stale = await world.page()
        assert (stale.stale_reason, stale.forward) == (StaleReason.ERROR, None)
        with pytest.raises(CallsStopped):
            await world.page("new")
        await asyncio.sleep(40)
        assert len(world.upstream.calls) == 1
        state = world.replicas[0].gateway.readiness().apps
        assert [(app.name, app.ok, bool(app.detail)) for app in state] == [("news", False, True), ("shop", False, True)]

    play(scene)


def test_a_wait_that_is_too_long_is_covered_by_what_is_stale() -> None:
    """With all slots taken for longer than the patience: the stale page at once, for lack of time and not of luck."""

    async def scene(world: SmallWorld) -> None:
        await world.page()
        await asyncio.sleep(RENEWED_S + 1)
        await asyncio.gather(*(world.page(f"q{number}", caller="other") for number in range(5)))
        asked_s = world.loop.time()
        stale = await world.page(patience_s=0.3)
        assert (stale.source, stale.stale_reason, stale.forward) == (Source.STALE, StaleReason.WAIT, None)
        assert world.loop.time() - asked_s < 0.31
        with pytest.raises(WaitTooLong) as late:
            await world.page("new", patience_s=0.3)
        assert (late.value.place, late.value.patience_s) == (1, 0.3)

    play(scene)


def test_a_patience_of_zero_is_for_stored_pages_only() -> None:
    """`NothingStored` without a place in line, whether the patience is 0 or the request says `only-if-cached`."""

    async def scene(world: SmallWorld) -> None:
        with pytest.raises(NothingStored):
            await world.page(patience_s=0)
        with pytest.raises(NothingStored):
            await world.page(directives=CacheDirectives(only_if_cached=True))
        await asyncio.sleep(2)
        assert not world.upstream.calls
        await world.page()
        assert (await world.page(patience_s=0)).source is Source.HIT
        await asyncio.sleep(RENEWED_S + 1)
        assert (await world.page(patience_s=0)).stale_reason is StaleReason.WAIT

    play(scene)


def test_a_page_over_two_blocks_lives_as_long_as_the_shorter_lived() -> None:
    """A settled block may be kept for long, but the page with an unsettled one beside it may not."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.dispatched_below = 10
        settled = await world.page(offset=0, is_absolute=True)
        unsettled = await world.page(offset=10, is_absolute=True)
        both = await world.page(offset=5, is_absolute=True)
        assert (settled.lifetime_s, unsettled.lifetime_s, both.lifetime_s) == (
            LIFETIMES.settled_s,
            FRESH_S,
            FRESH_S,
        )
        world.upstream.dispatched_below = 0
        world.upstream.total = 20
        mixed = await world.page("reversed", offset=5, is_absolute=True)
        assert mixed.lifetime_s == FRESH_S
        assert tasks(both) == list(range(5, 15))

    play(scene)


def test_a_part_of_a_stream_lives_as_long_as_its_block() -> None:
    """A watch looks again when it ends: a settled part later than others."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.dispatched_below = 10
        settled, unsettled = [await world.chunk(offset=offset, is_absolute=True) for offset in (0, 10)]
        assert (settled.lifetime_s, unsettled.lifetime_s) == (LIFETIMES.settled_s, FRESH_S)
        assert (settled.following, len(settled.records), settled.total) == (10, 10, 35)

    play(scene)


def test_two_blocks_of_a_page_share_one_patience() -> None:
    """What the first block has waited is missing from the second's wait, and the refusal tells of the whole wait."""

    async def scene(world: SmallWorld) -> None:
        await asyncio.gather(*(world.page(f"a{number}", caller="other") for number in range(5)))
        asked_s = world.loop.time()
        asking = asyncio.create_task(world.page(offset=5, patience_s=1.5))
        await asyncio.sleep(0.9)
        scheduler = world.replicas[0].apps[APP].list.line._scheduler
        await scheduler.done(0, block="", pause_ms=20_000, pause_reason="throttled")
        with pytest.raises(WaitTooLong) as late:
            await asking
        assert world.loop.time() - asked_s <= 1.51
        assert late.value.waited_s <= 1.51
        assert late.value.patience_s == 1.5

    play(scene)


def test_pages_beyond_the_end_of_a_list_cost_no_call() -> None:
    """Once any fresh block tells the total; a page that begins before the end is fetched."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.total = 20
        await world.page(replica=0)
        for offset in (20, 30, 500):
            beyond = await world.page(offset=offset, replica=1)
            assert (beyond.source, tasks(beyond), beyond.total) == (Source.HIT, [], 20)
        assert len(world.upstream.calls) == 1
        assert tasks(await world.page(offset=10, replica=1)) == list(range(10, 20))
        assert tasks(await world.page(offset=15, replica=1)) == list(range(15, 20))
        assert len(world.upstream.calls) == 2

    play(scene, replicas=2)


def test_the_end_of_a_list_is_believed_no_longer_than_its_block() -> None:
    """When the block that told the total is stale, or the caller wants a new answer, what may be beyond is fetched."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.total = 20
        await world.page()
        world.upstream.total = 25
        await asyncio.sleep(FRESH_S - 0.5)
        assert tasks(await world.page(offset=20)) == []
        assert tasks(await world.page(offset=20, directives=NO_CACHE)) == [20, 21, 22, 23, 24]
        world.upstream.total = 35
        await asyncio.sleep(FRESH_S + 0.5)
        assert tasks(await world.page(offset=30)) == [30, 31, 32, 33, 34]

    play(scene)


def test_the_first_block_is_never_beyond_the_end() -> None:
    """An empty list is fetched again when it is stale, and has tasks as soon as the upstream has some."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.total = 0
        assert tasks(await world.page()) == []
        await asyncio.sleep(RENEWED_S + 1)
        world.upstream.total = 3
        assert tasks(await world.page()) == [0, 1, 2]

    play(scene)


def test_a_slow_connection_takes_its_slot_anew_before_it_sends() -> None:
    """A call counts from its sending: with one call a second, one that took 0.9 s to connect keeps the next away."""
    rules = Rules(calls=1, window_ms=1_000, transit_ms=200, fetch_lease_ms=4_200)

    async def scene(world: SmallWorld) -> None:
        world.upstream.connect_s = 0.9
        slow = asyncio.create_task(world.page("slow", patience_s=10))
        await asyncio.sleep(0.5)
        world.upstream.connect_s = 0.0
        await asyncio.gather(slow, *(world.page(f"q{number}", patience_s=20) for number in range(3)))
        assert world.upstream.calls[0].keyword == "slow"
        assert len(world.upstream.calls) == 4
        assert world.upstream.worst(1.0) == 1

    play(scene, rules=rules)


def test_lifetimes_change_while_the_gateway_runs() -> None:
    """A shorter lifetime makes what is stored stale at once; a longer one makes Redis keep new blocks longer."""

    async def scene(world: SmallWorld) -> None:
        [replica] = world.replicas
        await world.page()
        await asyncio.sleep(2)
        replica.gateway.set_lifetimes(msgspec.structs.replace(LIFETIMES, fresh_s=1.0))
        stale = await world.page()
        assert (stale.source, stale.lifetime_s) == (Source.STALE, 1.0)
        await asyncio.sleep(1)
        longer = msgspec.structs.replace(LIFETIMES, fresh_s=500.0, stale_if_error_s=0.0, stale_while_revalidate_s=0.0)
        replica.gateway.set_lifetimes(longer)
        replica.cache.set_lifetimes(longer)
        assert (await world.page("new")).lifetime_s == 500.0
        await asyncio.sleep(490)
        assert len(world.redis.names()) == 2, "the new block and the end of its list"
        assert (await world.page("new")).source is Source.HIT

    play(scene)


def test_a_caller_that_pages_in_order_finds_the_next_block_fetched() -> None:
    """The block after the one being read is fetched while slots are idle: by its own call, and before it is needed."""

    async def scene(world: SmallWorld) -> None:
        for offset in (0, 5):
            await world.page(offset=offset, limit=5)
        await asyncio.sleep(1)
        assert [call.offset for call in world.upstream.calls] == [0, 10]
        assert (await world.page(offset=10, limit=5)).source is Source.HIT
        await world.page("other", offset=5, limit=5)
        await asyncio.sleep(1)
        assert [call.offset for call in world.upstream.calls if call.keyword == "other"] == [0]

    play(scene)


def test_no_block_is_fetched_ahead_while_calls_are_stopped_or_one_is_stored() -> None:
    """Prefetching makes no call for a block that is fresh, and none against a stop."""

    async def scene(world: SmallWorld) -> None:
        await world.page(offset=10, limit=5)
        await world.page(offset=0, limit=5)
        await world.page(offset=5, limit=5)
        await asyncio.sleep(6)
        assert [call.offset for call in world.upstream.calls] == [10, 0]
        await world.page("stopped", offset=0, limit=5)
        world.upstream.stops = STOPPED
        await world.page("stopped", offset=5, limit=5)
        await asyncio.sleep(6)
        assert len(world.upstream.calls) == 3

    play(scene)


def test_forced_answers_are_new_and_say_why_they_were_fetched() -> None:
    """`no-cache` fetches what is fresh, and what comes of it serves those who do not insist."""

    async def scene(world: SmallWorld) -> None:
        await world.page()
        await asyncio.sleep(2)
        forced = await world.page(directives=NO_CACHE)
        assert (forced.source, forced.forward, titles(forced)) == (Source.FETCHED, Forward.REQUEST, {"call 2"})
        again = await world.page()
        assert (again.source, titles(again)) == (Source.HIT, {"call 2"})
        bounded = await world.page(directives=CacheDirectives(max_age_s=1))
        assert bounded.source is Source.HIT

    play(scene)


def test_those_who_ask_together_share_a_call_and_one_has_paid() -> None:
    """Over two replicas and several callers: one fetched, the others joined, all with the same tasks."""

    async def scene(world: SmallWorld) -> None:
        got = await asyncio.gather(*(world.page(caller=f"c{n}", replica=n % 2) for n in range(8)))
        assert sorted(page.source for page in got) == [Source.FETCHED] + [Source.JOINED] * 7
        assert len({page.body for page in got}) == 1
        assert len(world.upstream.calls) == 1
        counts = [served.usage_store.counts for served in (each.apps[APP].list for each in world.replicas)]  # type: ignore[attr-defined]
        assert sum(count for each in counts for (_, what), count in each.items() if what == "joined") == 7

    play(scene, replicas=2)


def test_a_replica_that_shuts_down_refuses_and_ends() -> None:
    """It is ready from its start until it leaves; then who waits is refused, and a call under way still serves."""

    async def scene(world: SmallWorld) -> None:
        gateway = world.replicas[0].gateway
        assert gateway.readiness().ready
        assert gateway.readiness().redis == "ok"
        gateway.leave()
        assert not gateway.readiness().ready
        assert (await world.page()).source is Source.FETCHED

    play(scene)


def test_an_app_that_does_not_exist_is_unknown() -> None:
    """Neither pages nor budgets nor usage nor purges are to be had of it."""

    async def scene(world: SmallWorld) -> None:
        replica = world.replicas[0]
        del replica.apps[APP]
        with pytest.raises(UnknownApp):
            await world.page()
        with pytest.raises(UnknownApp):
            await replica.gateway.drop(APP)

    play(scene)


def test_without_redis_pages_in_memory_are_served_and_nothing_is_called() -> None:
    """A fresh page as a hit, a stale one as stale; both without a call, and the readiness says that Redis is away."""

    async def scene(world: SmallWorld) -> None:
        [replica] = world.replicas
        await world.page()
        world.redis.is_away = True
        assert (await world.page()).source is Source.HIT
        await asyncio.sleep(RENEWED_S + 1)
        stale = await world.page(patience_s=10)
        assert (stale.source, stale.stale_reason) == (Source.STALE, StaleReason.ERROR)
        assert replica.gateway.readiness().redis == "away"
        assert len(world.upstream.calls) == 1
        world.redis.is_away = False
        await asyncio.sleep(3)
        assert (await world.page(patience_s=10)).source is Source.FETCHED

    play(scene)


def test_the_budget_note_tells_the_rules_and_what_is_free() -> None:
    """A page that needed the budget carries its size, its window, and what is left of it."""

    async def scene(world: SmallWorld) -> None:
        page = await world.page()
        assert page.budget is not None
        assert (page.budget.calls, page.budget.window_s) == (RULES.calls, 1.0)
        assert 0 <= page.budget.free <= RULES.calls
        assert page.budget.reset_s <= 1.0

    play(scene)
