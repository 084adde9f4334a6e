"""Answers if a fetch fails or is not possible: a stale page, or a refusal."""

import asyncio

import pytest

from service.model.errors import (
    CallsStopped,
    LineFull,
    NothingStored,
    QueryRefused,
    UpstreamHTTPStatus,
    UpstreamTimeout,
    WaitTooLong,
)
from service.model.freshness import CacheDirectives, StaleReason
from service.model.pages import Forward, Source
from tests.simulation.small_world import APP, FRESH_S, LIFETIMES, RENEWED_S, STOPPED, SmallWorld, play

REFUSED = QueryRefused(app=APP, code=90104, text="no such list", advice="")


def test_waiting_blocks_are_bounded_by_the_callers_bound() -> None:
    """A caller at its own bound gets `LineFull`, with that bound and a `Retry-After` of a second or more."""

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
def test_stale_pages_cover_a_failing_upstream(error: Exception, reason: StaleReason, forward: Forward) -> None:
    """Stale pages are served up to `stale_if_error_s`, and say that a call was made; after that callers get the
    error."""

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
    """Stale pages are served without a call, others fail with the reason; nothing waits in line."""

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


def test_a_stale_page_covers_a_wait_that_is_too_long() -> None:
    """If all slots are taken for longer than the patience, the stale page is served at once, and says why."""

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
