"""Purges over replicas: real Valkey, one cache for each replica, no HTTP."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from service.budget.line.jobs import CallFailed
from service.cache.block_cache import BlockCache
from service.cache.memory_blocks import MemoryBlocks
from service.cache.purge import Purge
from service.cache.redis_blocks import RedisBlocks
from service.gateway.fetch import BlockJob, Fetching
from service.gateway.list_calls import ListCalls
from service.model.blocks import NOTHING, BlockKey
from service.model.errors import StoreUnavailable
from service.model.freshness import Lifetimes
from service.model.origin import NOBODY, Payer
from service.model.queries import At, Query
from service.model.tasks import Listing
from service.settings import AppSettings, RedisSettings
from service.store.redis_store import RedisStore
from service.upstream.apps import upstream_app_of
from tests.blocks import keep, one_task
from tests.servers import Server, until

LIFETIMES = Lifetimes(fresh_s=600, settled_s=600, refusal_s=600, stale_while_revalidate_s=60, stale_if_error_s=60)
QUERY = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=1))
KEY = BlockKey(query=QUERY, index=0)
OTHER = Query(app="news", since=At(epoch_s=0), until=At(epoch_s=1))
BLOCK = one_task(settled=True)


class Replica:
    """One replica's part of the cache."""

    def __init__(self, server: Server) -> None:
        self.store = RedisStore(RedisSettings(url=server.url, timeout_s=5.0))
        blocks = RedisBlocks(self.store, prefix="t", block_size=100)
        self.cache = BlockCache(blocks, MemoryBlocks(max_bytes=1_000_000, clock=time.monotonic), lifetimes=LIFETIMES)
        self.purge = Purge(self.store, blocks, prefix="t", apps=("shop", "news"))
        self.forgotten: list[str] = []
        self.purge.add(self.cache.forget)
        self.purge.add(self.forgotten.append)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Replica"]:
        """Listen until the context is left."""
        self.purge.start()
        try:
            await self.store.get("t:none")
            async with asyncio.timeout(20):
                while self.store.open_connections < 2:
                    await asyncio.sleep(0.005)
            yield self
        finally:
            await self.purge.aclose()
            await self.store.aclose()

    async def put(self, query: Query = QUERY, index: int = 0) -> None:
        """Keep a block."""
        await keep(self.cache, BlockKey(query=query, index=index), BLOCK)

    def remembers(self, query: Query = QUERY, index: int = 0) -> bool:
        """Return whether the block is in memory."""
        return self.cache.recall(BlockKey(query=query, index=index)) is not None


@pytest.fixture
async def pair(valkey: Server) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas on one server, which receive each other's messages."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Replica(valkey).running())
        two = await stack.enter_async_context(Replica(valkey).running())
        async with asyncio.timeout(20):
            while valkey.run("PUBSUB", "NUMSUB", "t:{shop}:purged")[1] < 2:
                await asyncio.sleep(0.005)
        yield one, two


async def test_a_purge_drops_blocks_on_all_replicas(pair: tuple[Replica, Replica]) -> None:
    """A purge empties Redis and both memories of the app, and leaves other apps alone."""
    one, two = pair
    for index in range(3):
        await one.put(index=index)
    await one.put(OTHER)
    await two.cache.get(KEY)
    await two.cache.get(BlockKey(query=OTHER, index=0))
    assert two.remembers()
    assert await one.purge.drop("shop") == 4  # three blocks and the end of the list
    await until(lambda: not two.remembers())
    assert not one.remembers()
    assert (await two.cache.get(KEY)).stored is None
    assert one.remembers(OTHER)
    assert two.remembers(OTHER)
    assert set(two.forgotten) == {"shop"}


async def test_a_fetch_from_before_a_purge_is_not_stored(pair: tuple[Replica, Replica]) -> None:
    """A block whose fetch began before another replica's purge is neither stored nor remembered, and says so."""
    one, two = pair
    generation = two.cache.generation("shop")
    await one.purge.drop("shop")
    await until(lambda: two.cache.generation("shop") > generation)
    assert two.cache.take(KEY, BLOCK, generation=generation) is None
    assert not two.remembers()
    assert (await one.cache.get(KEY)).stored is None


async def test_a_block_served_before_a_purge_is_not_stored_after_it(pair: tuple[Replica, Replica]) -> None:
    """A block that was served just before another replica's purge is not stored after it."""
    one, two = pair
    new = two.cache.take(KEY, BLOCK, generation=two.cache.generation("shop"))
    assert new is not None
    await one.purge.drop("shop")
    await until(lambda: not two.remembers())
    await two.cache.store(new, caller="c0")
    assert (await one.cache.get(KEY)).stored is None


class SlowUpstream:
    """Answers when `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = asyncio.Event()

    async def fetch(self, *_: object, **__: object) -> Listing:
        self.begun.set()
        await self.go.wait()
        return Listing(tasks=(), total=0)

    def stopped(self, app: object, kind: object) -> None:
        return None


class NoSlot:
    payer = Payer(caller="c0", origin=NOBODY, waited_s=0.0)

    async def hold(self) -> None:
        return None


@pytest.mark.parametrize(("attempt", "again"), [(1, True), (2, False)])
async def test_a_call_during_a_purge_is_repeated(pair: tuple[Replica, Replica], attempt: int, again: bool) -> None:
    """The result of a call that began before the purge is never served: the call is repeated, within the bound on
    tries."""
    one, two = pair
    upstream = SlowUpstream()
    settings = AppSettings(sdkappid=1_400_000_000, admin="a", secret_env="S")
    app = upstream_app_of("shop", settings, backup_hosts=False)
    calls = ListCalls(app, upstream, two.cache, block_size=100, align_s=1, clock=time.time)
    fetching = Fetching(
        app=app, calls=calls, stops=upstream, cache=two.cache, attempts=2, pause_s=1, pause_max_s=60, clock=time.time
    )
    job = BlockJob(fetching, KEY, caller="c0", seen=NOTHING, is_fresh=lambda _: True)
    call = asyncio.create_task(job.call(NoSlot(), attempt=attempt))
    await asyncio.wait_for(upstream.begun.wait(), 20)
    await one.purge.drop("shop")
    await until(lambda: "shop" in two.forgotten)
    upstream.go.set()
    outcome = await call
    assert isinstance(outcome, CallFailed)
    assert outcome.again is again
    assert not two.remembers()
    assert (await one.cache.get(KEY)).stored is None


async def test_a_missed_purge_is_detected_on_reconnect(own_valkey: Server) -> None:
    """A replica that was not listening during the purge drops its blocks as soon as it listens again."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Replica(own_valkey).running())
        two = await stack.enter_async_context(Replica(own_valkey).running())
        await one.put()
        await two.cache.get(KEY)
        own_valkey.run("ACL", "SETUSER", "default", "resetchannels")  # ends subscriptions, and allows no new ones
        with pytest.raises(StoreUnavailable):
            await one.purge.drop("shop")
        assert not one.remembers()
        assert two.remembers()
        own_valkey.run("ACL", "SETUSER", "default", "allchannels")
        await until(lambda: not two.remembers())


async def test_an_empty_redis_is_not_a_purge(own_valkey: Server) -> None:
    """If Redis has lost its data, replicas keep the blocks in their memory."""
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(Replica(own_valkey).running())
        await one.purge.drop("shop")
        assert len(one.forgotten) == 2  # before and after; its own message is ignored
        await one.put()
        before = len(one.forgotten)
        own_valkey.restart()
        async with asyncio.timeout(20):
            while own_valkey.run("PUBSUB", "NUMSUB", "t:{shop}:purged")[1] < 1:
                await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await until(lambda: len(one.forgotten) > before, within_s=0.3)
        assert one.remembers()


async def test_a_purge_without_redis_fails_but_clears_memory(own_valkey: Server) -> None:
    """A purge without Redis fails, but this replica has dropped its blocks."""
    async with Replica(own_valkey).running() as one:
        await one.put()
        own_valkey.kill()
        with pytest.raises(StoreUnavailable):
            await one.purge.drop("shop")
        assert not one.remembers()
