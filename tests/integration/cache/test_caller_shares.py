"""What Redis keeps for each caller, counted by a real Valkey, also if its memory is full."""

import time
from collections.abc import AsyncIterator

import pytest
import structlog.testing

from service.cache.block_cache import BlockCache
from service.cache.caller_shares import CallerShares
from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.model.blocks import Block, BlockKey, RefusedQuery, TaskKey
from service.model.freshness import Lifetimes
from service.model.queries import FromNow, Query
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.blocks import keep, one_task
from tests.servers import Server, until

LIFETIMES = Lifetimes(fresh_s=60, settled_s=600, refusal_s=60, stale_while_revalidate_s=60, stale_if_error_s=3000)
BOUND = 5
BRIEF_MS = 10_000
KEEP_MS = 3_060_000
TASK = b'{"id":0,"type":null,"status":null}'
LARGE_TASK = b'{"id":0,"type":null,"status":null,"title":"%b"}' % (b"x" * 8000)


def query(number: int, app: str = "shop") -> Query:
    """One of many queries, with times relative to now."""
    return Query(app=app, since=FromNow(offset_s=-86_400), until=FromNow(offset_s=0), keyword=f"k{number}")


def block(text: bytes = TASK) -> Block:
    """A block of one record."""
    return one_task(ends=(len(text),), body=text)


class Replica:
    """One replica's view of the cache."""

    def __init__(self, store: RedisStore, *, blocks_max: int = BOUND, brief_s: float = BRIEF_MS / 1000) -> None:
        self.now_s = 0.0
        self.shares = CallerShares(store, prefix="t", blocks_max=blocks_max, clock=lambda: self.now_s, brief_s=brief_s)
        self.blocks = RedisBlocks(store, prefix="t", block_size=100)
        memory = MemoryBlocks(max_bytes=10_000_000, clock=time.monotonic)
        self.cache = BlockCache(self.blocks, memory, lifetimes=LIFETIMES, shares=self.shares)

    async def put(self, of: Query, *, index: int = 0, caller: str = "c0", text: bytes = TASK) -> None:
        """Store a fetched block."""
        await keep(self.cache, BlockKey(query=of, index=index), block(text), caller=caller)

    def is_remembered(self, of: Query) -> bool:
        """Whether the block is in the replica's memory."""
        return self.cache.recall(BlockKey(query=of, index=0)) is not None


@pytest.fixture
async def store(own_valkey: Server) -> AsyncIterator[RedisStore]:
    opened = RedisStore(RedisSettings(url=own_valkey.url, timeout_s=5))
    yield opened
    await opened.aclose()


def ttl_ms(server: Server, replica: Replica, of: Query, index: int = 0) -> int:
    """The remaining life of a block in Redis."""
    return int(server.run("PTTL", replica.blocks.redis_key(BlockKey(query=of, index=index))))


async def test_beyond_the_bound_blocks_are_kept_briefly(store: RedisStore, own_valkey: Server) -> None:
    """Blocks beyond the bound, counted over all replicas, are kept briefly in Redis; this is logged once, and other
    callers and apps are not affected."""
    one, two = Replica(store), Replica(store)
    with structlog.testing.capture_logs() as logs:
        for number in range(BOUND + 3):
            await (one if number % 2 else two).put(query(number))
    lives = [ttl_ms(own_valkey, one, query(number)) for number in range(BOUND + 3)]
    assert min(lives[:BOUND]) > BRIEF_MS
    assert 0 < max(lives[BOUND:]) <= BRIEF_MS
    assert ttl_ms(own_valkey, one, query(BOUND), index=-1) <= BRIEF_MS  # the end of its list, too
    assert two.is_remembered(query(0))
    assert not one.is_remembered(query(BOUND))
    assert [log["event"] for log in logs] == ["cache.caller_over_bound"] * 2  # once on each replica
    assert one.shares.blocks == {("shop", "c0"): BOUND}
    assert one.shares.brief["shop", "c0"] + two.shares.brief["shop", "c0"] == 3
    await one.put(query(99), caller="c1")
    await one.put(query(99, app="news"))
    assert ttl_ms(own_valkey, one, query(99)) > BRIEF_MS
    assert ttl_ms(own_valkey, one, query(99, app="news")) > BRIEF_MS


async def test_the_blocks_of_one_long_list_count(store: RedisStore, own_valkey: Server) -> None:
    """A list of many blocks takes as much memory as many keywords."""
    replica = Replica(store)
    for index in range(BOUND + 1):
        await replica.put(query(0), index=index)
    assert ttl_ms(own_valkey, replica, query(0), index=BOUND - 1) > BRIEF_MS
    assert ttl_ms(own_valkey, replica, query(0), index=BOUND) <= BRIEF_MS
    assert replica.shares.queries() == {("shop", "c0"): 1}


async def test_a_query_fetched_again_is_not_another_one(store: RedisStore, own_valkey: Server) -> None:
    """Relative ranges move with the clock and are one query: renewing them for hours stays within any bound."""
    replica = Replica(store)
    for _ in range(3):
        for number in range(BOUND):
            await replica.put(query(number))
    assert min(ttl_ms(own_valkey, replica, query(number)) for number in range(BOUND)) > BRIEF_MS
    assert replica.shares.blocks == {("shop", "c0"): BOUND}
    assert replica.shares.queries() == {("shop", "c0"): BOUND}


async def test_distinct_queries_are_those_of_the_last_hour(store: RedisStore) -> None:
    """The count of queries forgets what was fetched more than an hour ago."""
    replica = Replica(store)
    await replica.put(query(0))
    replica.now_s = 3000.0
    await replica.put(query(1))
    assert replica.shares.queries() == {("shop", "c0"): 2}
    replica.now_s = 3601.0
    assert replica.shares.queries() == {("shop", "c0"): 1}


async def test_expired_blocks_make_room(store: RedisStore, own_valkey: Server) -> None:
    """A block that has expired in Redis is not counted; nor is one without an expiry."""
    replica = Replica(store)
    for number in range(BOUND):
        await replica.put(query(number))
    counted = own_valkey.run("ZRANGE", "t:{shop}:share:c0", 0, -1)
    own_valkey.run("ZADD", "t:{shop}:share:c0", 1, counted[0])
    own_valkey.run("ZADD", "t:{shop}:share:c0", "1e300", counted[1])
    await replica.put(query(10))
    await replica.put(query(11))
    assert ttl_ms(own_valkey, replica, query(11)) > BRIEF_MS
    assert replica.shares.blocks == {("shop", "c0"): BOUND}
    assert 0 < int(own_valkey.run("PTTL", "t:{shop}:share:c0")) <= 3_600_000


async def test_a_stored_block_keeps_its_time(store: RedisStore, own_valkey: Server) -> None:
    """A caller beyond its bound that fetches another caller's block again does not shorten its life."""
    replica = Replica(store)
    await replica.put(query(0), caller="victim")
    for number in range(1, BOUND + 2):
        await replica.put(query(number))
    await replica.put(query(0), text=b'{"id": 0, "type": null, "status": "new"}')
    assert ttl_ms(own_valkey, replica, query(0)) > BRIEF_MS
    assert ttl_ms(own_valkey, replica, query(0)) <= KEEP_MS


async def test_dropped_blocks_are_not_counted(store: RedisStore, own_valkey: Server) -> None:
    """`DELETE /cache` empties the count with the cache."""
    replica = Replica(store)
    for number in range(BOUND + 1):
        await replica.put(query(number))
    await replica.blocks.drop_app("shop")
    replica.cache.forget("shop")
    assert own_valkey.run("KEYS", "*") == []
    assert replica.shares.blocks == {}
    await replica.put(query(BOUND))
    assert ttl_ms(own_valkey, replica, query(BOUND)) > BRIEF_MS


async def test_garbage_in_place_of_the_count_heals(store: RedisStore, own_valkey: Server) -> None:
    """A key of another type is replaced, and counting starts again."""
    own_valkey.run("SET", "t:{shop}:share:c0", "nonsense")
    replica = Replica(store)
    await replica.put(query(0))
    assert own_valkey.run("ZCARD", "t:{shop}:share:c0") == 1


async def test_refusals_and_single_tasks_are_not_counted(store: RedisStore, own_valkey: Server) -> None:
    """Refusals and single tasks are small, and do not count toward the bound."""
    replica = Replica(store)
    refusal = RefusedQuery(fetched_at_ms=int(time.time() * 1000), code=90104, text="no")
    await keep(replica.cache, BlockKey(query=query(0), index=0), refusal)
    await keep(replica.cache, TaskKey(app="shop", id=1), block())
    assert own_valkey.run("EXISTS", "t:{shop}:share:c0") == 0


async def test_without_redis_nothing_is_counted(store: RedisStore, own_valkey: Server) -> None:
    """While Redis is away, blocks are kept in memory as usual."""
    own_valkey.kill()
    replica = Replica(store, blocks_max=1)
    for number in range(3):
        await replica.put(query(number))
    assert all(replica.is_remembered(query(number)) for number in range(3))


async def test_blocks_are_kept_if_the_redis_user_may_not_count(store: RedisStore, own_valkey: Server) -> None:
    """With the ACL of the previous release, blocks are kept as before, and the log quotes Redis."""
    own_valkey.run("ACL", "SETUSER", "default", "-zremrangebyscore")
    replica = Replica(store, blocks_max=1)
    with structlog.testing.capture_logs() as logs:
        for number in range(2):
            await replica.put(query(number))
    assert ttl_ms(own_valkey, replica, query(1)) > BRIEF_MS
    assert [log["event"] for log in logs] == ["store.refused"]


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-lru"])
async def test_one_caller_does_not_evict_the_others(store: RedisStore, own_valkey: Server, policy: str) -> None:
    """3,000 queries of one caller, three times what fits into Redis: another app's and another caller's pages stay."""
    own_valkey.run("CONFIG", "SET", "maxmemory", str(int(own_valkey.run("INFO", "memory")["used_memory"]) + 8_000_000))
    own_valkey.run("CONFIG", "SET", "maxmemory-policy", policy)
    replica = Replica(store, blocks_max=100, brief_s=0.2)
    others = [(query(number, app="news"), "c0") for number in range(20)]
    others += [(query(number), "c1") for number in range(20)]
    for of, caller in others:
        await replica.put(of, caller=caller, text=TASK)
    with structlog.testing.capture_logs() as logs:
        for number in range(3000):
            await replica.put(query(1000 + number), text=LARGE_TASK)
            if number % 200 == 0:
                await until(lambda: own_valkey.run("DBSIZE") < 400)  # expired blocks are removed as time passes
    assert {log["event"] for log in logs} == {"cache.caller_over_bound"}
    for of in (*(of for of, _ in others), query(1000)):
        assert (await replica.blocks.get(replica.blocks.redis_key(BlockKey(query=of, index=0)))).stored is not None
