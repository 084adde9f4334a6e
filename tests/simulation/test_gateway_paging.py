"""Pages over several blocks: their lifetime and patience, the end of a list, and prefetched blocks."""

import asyncio

import pytest

from service.model.callers import Caller
from service.model.errors import WaitTooLong
from service.model.freshness import CacheDirectives
from service.model.pages import PageRequest, Source
from service.model.queries import Slice
from tests.simulation.small_world import (
    APP,
    FRESH_S,
    LIFETIMES,
    NO_CACHE,
    RENEWED_S,
    STOPPED,
    SmallWorld,
    play,
    query_of,
    tasks,
)


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
    """The lifetime of a part of a stream is that of its block: longer if the block is settled."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.dispatched_below = 10
        settled, unsettled = [await world.chunk(offset=offset, is_absolute=True) for offset in (0, 10)]
        assert (settled.lifetime_s, unsettled.lifetime_s) == (LIFETIMES.settled_s, FRESH_S)
        assert (settled.following, len(settled.records), settled.total) == (10, 10, 35)

    play(scene)


def test_the_second_block_of_a_page_has_the_remaining_patience() -> None:
    """One slot is free: the first block takes it, and the other one waits for the next."""

    async def scene(world: SmallWorld) -> None:
        await asyncio.gather(*(world.page(f"a{number}", caller="other") for number in range(4)))
        asked_s = world.loop.time()
        page = await world.page(offset=5, patience_s=3.0)
        assert tasks(page) == list(range(5, 15))
        assert 0.5 < world.loop.time() - asked_s < 2.0

    play(scene)


def test_two_blocks_of_a_page_share_one_patience() -> None:
    """The wait for the first block reduces the patience for the second, and a refusal has the total wait."""

    async def scene(world: SmallWorld) -> None:
        await asyncio.gather(*(world.page(f"a{number}", caller="other") for number in range(5)))
        asked_s = world.loop.time()
        asking = asyncio.create_task(world.page(offset=5, patience_s=1.5))
        await asyncio.sleep(0.9)
        await world.pause(20_000)
        with pytest.raises(WaitTooLong) as late:
            await asking
        assert world.loop.time() - asked_s <= 1.51
        assert late.value.waited_s <= 1.51
        assert late.value.patience_s == 1.5

    play(scene)


def test_pages_beyond_the_end_of_a_list_cost_no_call() -> None:
    """Pages beyond the total of any fresh block cost no call; a page that begins before the end is fetched."""

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


def test_the_end_of_a_list_is_trusted_while_its_block_is_fresh() -> None:
    """If the block with the total is stale, or the caller requests a new answer, blocks beyond the end are fetched."""

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


def test_a_caller_that_pages_in_order_finds_the_next_block_prefetched() -> None:
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


def test_no_block_is_prefetched_while_calls_are_stopped_or_if_it_is_stored() -> None:
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


def test_the_last_page_is_served_from_memory_although_its_slice_ends_beyond_the_list() -> None:
    """No block beyond the end is looked for."""

    async def scene(world: SmallWorld) -> None:
        page = await world.page(offset=33, limit=10)
        assert tasks(page) == [33, 34]
        request = PageRequest(
            caller=Caller(name="c", apps=frozenset((APP,)), weight=1.0, waiting_max=50, wait_max_s=60),
            query=query_of("", is_absolute=False),
            slice=Slice(offset=33, limit=10),
            patience_s=3.0,
            directives=CacheDirectives(),
        )
        found = world.replicas[0].gateway.page_from_memory(request)
        assert found is not None
        assert tasks(found) == [33, 34]

    play(scene)
