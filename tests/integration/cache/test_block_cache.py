"""Blocks that many request at the same moment: a real Valkey counts the reads."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from service.cache.block_cache import BlockCache
from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.model.blocks import BlockKey
from service.model.errors import StoreUnavailable
from service.model.freshness import Lifetimes
from service.model.queries import At, Query
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.blocks import keep, one_task
from tests.servers import Server

LIFETIMES = Lifetimes(fresh_s=600, settled_s=600, refusal_s=600, stale_while_revalidate_s=60, stale_if_error_s=60)
QUERY = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=1))
KEY = BlockKey(query=QUERY, index=0)
BLOCK = one_task(fetched_at_ms=1_700_000_000_000, settled=True)


@pytest.fixture
async def cache(own_valkey: Server) -> AsyncIterator[BlockCache]:
    """A cache without memory, with one block in Redis."""
    store = RedisStore(RedisSettings(url=own_valkey.url, timeout_s=5.0))
    blocks = RedisBlocks(store, prefix="t", block_size=100)
    cache = BlockCache(blocks, MemoryBlocks(max_bytes=0, clock=time.monotonic), lifetimes=LIFETIMES)
    await keep(cache, KEY, BLOCK)
    yield cache
    await store.aclose()


def reads(server: Server) -> int:
    """How many values were read from the server."""
    stats = server.run("INFO", "commandstats")
    return int(stats["cmdstat_get"]["calls"]) if "cmdstat_get" in stats else 0


async def test_concurrent_reads_of_a_block_are_one_read(cache: BlockCache, own_valkey: Server) -> None:
    """A hundred requests for a block at the same moment cost Redis one read; a later one reads again."""
    got = await asyncio.gather(*(cache.get(KEY) for _ in range(100)))
    assert {kept.stored for kept in got} == {BLOCK}
    assert reads(own_valkey) == 1
    await cache.get(KEY)
    assert reads(own_valkey) == 2


async def test_a_cancelled_reader_does_not_cancel_the_others(cache: BlockCache, own_valkey: Server) -> None:
    """The read continues for those that joined, even if the request that began it is cancelled."""
    first, second = (asyncio.create_task(cache.get(KEY)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).stored == BLOCK
    assert first.cancelled()
    assert reads(own_valkey) == 1


async def test_a_read_from_before_a_purge_is_not_joined(cache: BlockCache, own_valkey: Server) -> None:
    """After the app's blocks were dropped, and for a request that looks for a new block, Redis is read again."""
    before = asyncio.create_task(cache.get(KEY))
    await asyncio.sleep(0)
    looked = asyncio.create_task(cache.look(KEY))
    cache.forget("shop")
    await asyncio.gather(before, looked, cache.get(KEY))
    assert reads(own_valkey) == 3


async def test_an_outage_fails_each_joined_read(cache: BlockCache, own_valkey: Server) -> None:
    """Requests that joined learn that Redis is unavailable, as the first one does; later ones don't get that answer."""
    own_valkey.kill()
    outcomes = await asyncio.gather(*(cache.get(KEY) for _ in range(5)), return_exceptions=True)
    assert {type(each) for each in outcomes} == {StoreUnavailable}
    own_valkey.start()
    async with asyncio.timeout(20):
        while True:
            try:
                assert (await cache.get(KEY)).stored is None
                break
            except StoreUnavailable:
                await asyncio.sleep(0.02)
