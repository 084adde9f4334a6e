"""Blocks that take several calls, because the upstream returns fewer tasks than requested."""

import asyncio
import json

import pytest

from service.budget.line.jobs import CallFailed
from service.gateway.list_calls import FILL_CALLS_MAX, FILL_WITHIN_S
from service.model.blocks import Block, CachedBlock
from service.model.pages import Source
from tests.simulation.fetching import KEY, Slot, Watched, fetching_of, job_of
from tests.simulation.small_world import APP, SmallWorld, play


def test_the_rest_of_a_short_answer_is_fetched() -> None:
    """Four at a time fill a block of ten by three calls, each for what is missing; the page is whole, nothing twice."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 4
        page = await world.page(patience_s=20)
        assert [task["id"] for task in json.loads(b"[" + page.body + b"]")] == list(range(10))
        assert [(call.offset, call.want) for call in world.upstream.calls] == [(0, 10), (4, 6), (8, 2)]
        assert (page.missing, page.consistent, page.source) == (0, True, Source.FETCHED)
        assert world.replicas[0].list_calls[APP].short_answers == 2
        last = await world.page(offset=30, patience_s=20)
        assert [(call.offset, call.want) for call in world.upstream.calls[3:]] == [(30, 10), (34, 6)]
        assert last.missing == 0

    play(scene)


def test_an_empty_answer_is_accepted_after_one_call() -> None:
    """If the upstream returns none of the tasks that it counts, one call is made, and the page has the number of
    missing tasks."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 0
        page = await world.page(limit=7)
        assert (page.missing, page.total, page.body) == (7, 35, b"")
        assert len(world.upstream.calls) == 1
        assert (await world.page(limit=7)).source is Source.HIT

    play(scene)


def test_a_block_is_filled_by_a_bounded_number_of_calls() -> None:
    """After the last of them the block is served, with the number of missing tasks."""

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
    """Another replica continues a part, but does not join parts that were fetched far apart."""

    async def scene(world: SmallWorld) -> None:
        world.upstream.most = 4
        await job_of(fetching_of(world, Watched())).call(Slot(), attempt=1)
        await asyncio.sleep(waits_s)
        other = fetching_of(world, Watched(), replica=1)
        await job_of(other, seen=await other.cache.get(KEY)).call(Slot(), attempt=1)
        assert world.upstream.calls[-1].offset == offset

    play(scene, replicas=2)


def test_without_redis_only_a_part_in_memory_is_continued() -> None:
    """Without Redis, a part in memory is continued, and otherwise the whole block is fetched."""

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


def test_a_part_of_a_block_is_never_served() -> None:
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
