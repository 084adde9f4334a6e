"""Blocks in Redis, against a real server."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from structlog.testing import capture_logs

from service.cache.codec import FORMAT
from service.cache.redis_blocks import RedisBlocks
from service.model.blocks import HEAD_BYTES, NOTHING, Block, BlockKey, CacheKey, RefusedQuery, TaskKey
from service.model.queries import At, FromNow, Query, Sort
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.blocks import TWO_TASKS
from tests.servers import Server

QUERY = Query(app="shop", since=FromNow(offset_s=-86_400), until=At(epoch_s=1_800_000_000), keyword="Sommerschluss")
KEY = BlockKey(query=QUERY, index=0)
BLOCK = TWO_TASKS


@pytest.fixture
async def store(valkey: Server) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisSettings(url=valkey.url, timeout_s=5.0))
    yield store
    await store.aclose()


@pytest.fixture
def cache(store: RedisStore) -> RedisBlocks:
    return RedisBlocks(store, prefix="taskgate", block_size=100)


async def put(cache: RedisBlocks, key: CacheKey, block: Block, *, ttl_ms: int) -> bytes:
    """Store a block, if it is not too large; return its head."""
    encoded = cache.encoded(cache.redis_key(key), block, ttl_ms=ttl_ms)
    if encoded is None:
        return b""
    await cache.put_all([encoded])
    return encoded.value[:HEAD_BYTES]


async def test_a_block_is_returned_with_its_head(cache: RedisBlocks) -> None:
    """A stored block is returned with the head that `put` returned; for an absent one, nothing is."""
    head = await put(cache, BlockKey(query=QUERY, index=3), BLOCK, ttl_ms=10_000)
    kept = await cache.get(cache.redis_key(BlockKey(query=QUERY, index=3)))
    assert kept.stored == BLOCK
    assert kept.head == head
    assert len(head) == HEAD_BYTES
    assert await cache.get(cache.redis_key(BlockKey(query=QUERY, index=4))) == NOTHING


async def test_the_same_block_put_twice_has_two_heads(cache: RedisBlocks) -> None:
    """Two fetches are distinct even if they returned the same at the same time."""
    assert await put(cache, KEY, BLOCK, ttl_ms=10_000) != await put(cache, KEY, BLOCK, ttl_ms=10_000)


def test_keys_differ_where_answers_may_and_show_nothing(cache: RedisBlocks, store: RedisStore) -> None:
    """App, times, order, keyword, block size, index and a task's id each change the key; a keyword isn't in it."""
    other_size = RedisBlocks(store, prefix="taskgate", block_size=50)
    queries = (
        Query(app="news", since=QUERY.since, until=QUERY.until, keyword=QUERY.keyword),
        Query(app="shop", since=At(epoch_s=1), until=QUERY.until, keyword=QUERY.keyword),
        Query(app="shop", since=QUERY.since, until=QUERY.until, keyword=QUERY.keyword, sort=Sort.CREATED),
        Query(app="shop", since=QUERY.since, until=QUERY.until),
    )
    others: tuple[CacheKey, ...] = (
        BlockKey(query=QUERY, index=1),
        *(BlockKey(query=query, index=0) for query in queries),
        *(TaskKey(app=app, id=task_id) for app in ("shop", "news") for task_id in (1, 2)),
    )
    keys = [cache.redis_key(KEY), other_size.redis_key(KEY), *map(cache.redis_key, others)]
    assert len(set(keys)) == len(keys)
    assert all(key.startswith(("taskgate:{shop}:b:", "taskgate:{news}:b:")) for key in keys)
    assert not any("Sommer" in key for key in keys)


@pytest.mark.parametrize("value", [b"", b"x", b"\x02b" + bytes(60), b"\x01b" + bytes(60), b"{}" * 40])
async def test_a_value_that_cannot_be_read_counts_as_none(cache: RedisBlocks, valkey: Server, value: bytes) -> None:
    """An unreadable value is counted, its head is returned, and the next put replaces it."""
    valkey.run("SET", cache.redis_key(KEY), value)
    kept = await cache.get(cache.redis_key(KEY))
    assert kept.stored is None
    assert kept.head == value[:HEAD_BYTES]
    assert cache.corrupt == 1
    assert cache.foreign == (len(value) > 20 and value[0] != FORMAT)
    await put(cache, KEY, BLOCK, ttl_ms=10_000)
    assert (await cache.get(cache.redis_key(KEY))).stored == BLOCK


async def test_a_block_too_large_is_not_stored(store: RedisStore) -> None:
    """A block that is too large gets no head, is counted, and the previous value stays."""
    small = RedisBlocks(store, prefix="taskgate", block_size=100, value_max_bytes=250)
    head = await put(small, KEY, BLOCK, ttl_ms=10_000)
    large = Block(
        fetched_at_ms=2,
        range=BLOCK.range,
        total=1,
        settled=False,
        ends=(300,),
        body=bytes(300),
        ids=bytes(8),
        codes=b"\0",
    )
    assert await put(small, KEY, large, ttl_ms=10_000) == b""
    assert small.oversized == 1
    assert (await small.get(small.redis_key(KEY))).head == head


async def test_an_app_is_dropped_alone(cache: RedisBlocks) -> None:
    """drop_app deletes the blocks and tasks of one app, whatever their query, and no other's."""
    other = Query(app="shop2", since=QUERY.since, until=QUERY.until)
    for index in range(5):
        await put(cache, BlockKey(query=QUERY, index=index), BLOCK, ttl_ms=60_000)
    await put(cache, TaskKey(app="shop", id=7), BLOCK, ttl_ms=60_000)
    await put(cache, BlockKey(query=other, index=0), BLOCK, ttl_ms=60_000)
    assert await cache.drop_app("shop") == 6
    assert await cache.get(cache.redis_key(KEY)) == NOTHING
    assert (await cache.get(cache.redis_key(BlockKey(query=other, index=0)))).stored == BLOCK


async def test_an_evicted_block_counts_as_absent(cache: RedisBlocks, valkey: Server) -> None:
    """A key that Redis has evicted is as if it had never existed."""
    await put(cache, KEY, BLOCK, ttl_ms=60_000)
    valkey.run("DEL", cache.redis_key(KEY))
    assert await cache.get(cache.redis_key(KEY)) == NOTHING


def test_a_value_of_more_than_sixteen_mebibytes_is_not_stored(cache: RedisBlocks) -> None:
    """Such values would hold up Redis for everyone."""
    large = RefusedQuery(fetched_at_ms=1, code=90104, text="x" * (16 * 1024 * 1024 - 28))
    assert cache.encoded(cache.redis_key(KEY), large, ttl_ms=1_000) is not None
    larger = msgspec.structs.replace(large, text=large.text + "x")
    assert cache.encoded(cache.redis_key(KEY), larger, ttl_ms=1_000) is None
    assert cache.oversized == 1


async def test_each_reason_for_an_unreadable_value_is_logged_once(cache: RedisBlocks, valkey: Server) -> None:
    """However often such values are read."""
    with capture_logs() as logs:
        for value in (b"x", b"x", b"\x02b" + bytes(60), b"\x02b" + bytes(60), b"y"):
            valkey.run("SET", cache.redis_key(KEY), value)
            await cache.get(cache.redis_key(KEY))
    assert [(entry["event"], entry["reason"]) for entry in logs] == [
        ("cache.corrupt", "short"),
        ("cache.corrupt", "format"),
    ]
    assert cache.corrupt == 5
