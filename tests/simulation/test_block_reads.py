"""Reads of blocks that several requests share, in virtual time: a cancelled request does not disturb the others."""

import asyncio
import gc
from typing import Any

from service.model.blocks import BlockKey
from tests.simulation.small_world import SmallWorld, play, query_of

KEY = BlockKey(query=query_of("read"), index=0)


def test_a_failed_read_without_waiters_is_not_reported() -> None:
    """The loop reports no exception that was never retrieved, and the next read is a new one."""

    async def scene(world: SmallWorld) -> None:
        reported: list[dict[str, Any]] = []
        world.loop.set_exception_handler(lambda _, context: reported.append(context))
        cache = world.replicas[0].cache
        world.redis.is_away = True
        reading = asyncio.create_task(cache.get(KEY))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.sleep(1)
        del reading  # whose frame holds the read
        gc.collect()
        assert reported == []
        world.redis.is_away = False
        assert (await cache.get(KEY)).stored is None

    play(scene)


def test_a_read_is_shared_by_all_requests_during_it() -> None:
    """One of them may be cancelled: the others get the block, by one command."""

    async def scene(world: SmallWorld) -> None:
        cache = world.replicas[0].cache
        reads = world.redis_calls("get")
        first, *others = [asyncio.create_task(cache.get(KEY)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        assert [found.stored for found in await asyncio.gather(*others)] == [None, None]
        assert world.redis_calls("get") == reads + 1
        await cache.get(KEY)
        assert world.redis_calls("get") == reads + 2

    play(scene)
