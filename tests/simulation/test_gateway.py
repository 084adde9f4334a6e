"""A gateway's answers in virtual time: which, how old, after how long, and by how many calls."""

import asyncio

import msgspec
import pytest

from service.budget.scheduler.rules import Rules
from service.model.errors import ShuttingDown, UnknownApp
from service.model.freshness import CacheDirectives, StaleReason
from service.model.pages import Forward, Source
from tests.simulation.small_world import APP, FRESH_S, LIFETIMES, NO_CACHE, RULES, SmallWorld, play, titles


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
        await world.page(directives=NO_CACHE)
        ends = world.replicas[0].apps[APP].list.line.turn_ends
        assert {word for _, word in ends} == {"used"}, "no turn is spent on a block that this replica has stored itself"

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


def test_a_slow_connection_renews_its_slot_before_it_sends() -> None:
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


def test_forced_answers_are_new_and_say_why_they_were_fetched() -> None:
    """`no-cache` fetches even a fresh page, and the new block serves requests without it."""

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


def test_concurrent_requests_share_a_call_and_one_pays() -> None:
    """Over two replicas and several callers: one fetched, the others joined, all with the same tasks."""

    async def scene(world: SmallWorld) -> None:
        got = await asyncio.gather(*(world.page(caller=f"c{n}", replica=n % 2) for n in range(8)))
        assert sorted(page.source for page in got) == [Source.FETCHED] + [Source.JOINED] * 7
        assert len({page.body for page in got}) == 1
        assert len(world.upstream.calls) == 1
        counts = [served.usage_store.counts for served in (each.apps[APP].list for each in world.replicas)]  # type: ignore[attr-defined]
        assert sum(count for each in counts for (_, what), count in each.items() if what == "joined") == 7

    play(scene, replicas=2)


def test_a_replica_that_shuts_down_refuses_waiting_requests() -> None:
    """It is ready from its start until `begin_drain`; then waiting requests are refused, and a call under way still
    serves."""

    async def scene(world: SmallWorld) -> None:
        gateway = world.replicas[0].gateway
        assert gateway.readiness().ready
        assert gateway.readiness().redis == "ok"
        gateway.begin_drain()
        assert not gateway.readiness().ready
        assert (await world.page()).source is Source.FETCHED

    play(scene)


def test_a_replica_that_refuses_rejects_waiting_requests_at_once() -> None:
    """A call under way is awaited; requests that wait for a turn are refused, before anything is closed."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.took_s = 1.0
        calling = [asyncio.create_task(world.page(f"q{number}")) for number in range(5)]
        await asyncio.sleep(0.5)
        waiting = asyncio.create_task(world.page("late"))
        await asyncio.sleep(0.1)
        left_s = world.loop.time()
        world.replicas[0].gateway.reject_waiting()
        with pytest.raises(ShuttingDown):
            await waiting
        assert world.loop.time() - left_s < 0.01
        assert {page.source for page in await asyncio.gather(*calling)} == {Source.FETCHED}

    play(scene)


def test_an_app_that_does_not_exist_is_unknown() -> None:
    """Pages, budget, usage and purges of an app that does not exist raise UnknownApp."""

    async def scene(world: SmallWorld) -> None:
        replica = world.replicas[0]
        del replica.apps[APP]
        with pytest.raises(UnknownApp):
            await world.page()
        with pytest.raises(UnknownApp):
            await replica.gateway.drop(APP)

    play(scene)


def test_the_budget_note_has_the_rules_and_the_free_calls() -> None:
    """A page that needed the budget carries its size, its window, and what is left of it."""

    async def scene(world: SmallWorld) -> None:
        page = await world.page()
        assert page.budget is not None
        assert (page.budget.calls, page.budget.window_s) == (RULES.calls, 1.0)
        assert 0 <= page.budget.free <= RULES.calls
        assert page.budget.reset_s <= 1.0

    play(scene)
