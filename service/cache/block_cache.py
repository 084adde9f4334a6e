"""Looks up blocks in this replica's memory, then in Redis."""

import asyncio
from contextlib import suppress

import msgspec
import structlog

from service.cache.caller_shares import CallerShares
from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.cache.task_places import TaskPlace, TaskPlaces
from service.model.blocks import (
    HEAD_BYTES,
    NOTHING,
    Block,
    BlockKey,
    CachedBlock,
    CacheKey,
    Stored,
    TaskKey,
    single_task,
)
from service.model.errors import StoreUnavailable
from service.model.freshness import Lifetimes, keep_for_ms, longest_ms
from service.model.queries import Query
from service.store.interfaces import Put

END = -1
"""The index under which the end of a query's list is stored: its newest block, without its tasks."""

log = structlog.get_logger()


class NewBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A fetched block that this replica serves already, and the values to store in Redis, for the others."""

    kept: CachedBlock
    key: CacheKey
    redis_key: str
    generation: int
    puts: tuple[Put, ...]


class BlockCache:
    """Keeps blocks for as long as any request may be served from them, within the `shares` of callers, if given.

    A task is found under its own key and, if that is newer, in a block of a list; across replicas by its `places`.
    `redis_key` returns a block's key in Redis, which also identifies it elsewhere.
    """

    def __init__(
        self,
        cache: RedisBlocks,
        memory: MemoryBlocks,
        *,
        lifetimes: Lifetimes,
        places: TaskPlaces | None = None,
        shares: CallerShares | None = None,
    ) -> None:
        self.redis_key = cache.redis_key
        self._cache = cache
        self._places = places
        self._memory = memory
        self._lifetimes = lifetimes
        self._shares = shares
        self._generations: dict[str, int] = {}
        self._reading: dict[tuple[CacheKey, int], asyncio.Task[CachedBlock]] = {}

    def generation(self, app: str) -> int:
        """Return how often the app's blocks were dropped; results of fetches begun in an earlier generation are
        discarded."""
        return self._generations.get(app, 0)

    def forget(self, app: str) -> None:
        """Forget all of the app's blocks in memory, and those being read or fetched."""
        self._generations[app] = self.generation(app) + 1
        self._memory.drop_app(app)
        if self._shares is not None:
            self._shares.forget(app)

    def set_lifetimes(self, lifetimes: Lifetimes) -> None:
        """Use these lifetimes for blocks stored from now on."""
        self._lifetimes = lifetimes

    def recall(self, key: CacheKey) -> CachedBlock | None:
        """Return the block from this replica's memory; does no I/O."""
        kept = self._memory.get(self.redis_key(key))
        if isinstance(key, TaskKey) and (block := self._memory.find_task(key.app, key.id)) is not None:
            return _newer(kept or NOTHING, single_task(block, key.id))
        return kept

    async def get(self, key: CacheKey) -> CachedBlock:
        """Return the block as Redis has it, sharing a read that is under way. Raise StoreUnavailable.

        After the app's blocks were forgotten, a read that began before is not shared.
        """
        asked = key, self.generation(key.app)
        task = self._reading.get(asked)
        if task is None:
            task = self._reading[asked] = asyncio.create_task(self._got(key))
            task.add_done_callback(lambda read: self._read(asked, read))
        return await asyncio.shield(task)

    def _read(self, asked: tuple[CacheKey, int], task: "asyncio.Task[CachedBlock]") -> None:
        """Drop a finished read and mark its error as retrieved: its waiters, if any, have received it."""
        del self._reading[asked]
        if not task.cancelled():
            task.exception()

    async def look(self, key: CacheKey) -> CachedBlock:
        """Return the block as Redis has it now under its own key, with a new read. Raise StoreUnavailable."""
        return await self._look_at(key.app, self.redis_key(key), finds_tasks=isinstance(key, BlockKey))

    async def _got(self, key: CacheKey) -> CachedBlock:
        """Return the block as Redis has it now; a task also from a block of a list, if that is newer."""
        if not isinstance(key, TaskKey) or self._places is None:
            return await self.look(key)
        kept, place = await asyncio.gather(self.look(key), self._place(self._places, key))
        if place is None or (kept.stored is not None and kept.stored.fetched_at_ms >= place.fetched_at_ms):
            return kept
        redis_key = self._cache.named(key.app, place.block)
        try:
            listed = self._memory.get(redis_key) or await self._look_at(key.app, redis_key, finds_tasks=True)
        except StoreUnavailable:
            return kept
        return _newer(kept, single_task(listed.stored, key.id) if isinstance(listed.stored, Block) else None)

    async def _look_at(self, app: str, redis_key: str, *, finds_tasks: bool) -> CachedBlock:
        generation = self.generation(app)
        kept = await self._cache.get(redis_key)
        if generation == self.generation(app):
            self._remember(app, redis_key, kept, finds_tasks=finds_tasks)
        return kept

    async def _place(self, places: TaskPlaces, key: TaskKey) -> TaskPlace | None:
        try:
            return await places.find(key.app, key.id)
        except StoreUnavailable:
            return None

    def take(self, key: CacheKey, stored: Stored, *, generation: int) -> NewBlock | None:
        """Keep a fetched block in memory, and return it with what to `store`.

        Return None if the blocks were forgotten since `generation`, in which the fetch began: it must not be served.
        """
        if generation != self.generation(key.app):
            return None
        redis_key = self.redis_key(key)
        put, end = self._encoded(redis_key, stored), self._encoded_end(key, stored)
        kept = CachedBlock(stored=stored, head=b"" if put is None else put.value[:HEAD_BYTES])
        self._remember(key.app, redis_key, kept, finds_tasks=isinstance(key, BlockKey))
        puts = tuple(each for each in (put, end) if each is not None)
        return NewBlock(kept=kept, key=key, redis_key=redis_key, generation=generation, puts=puts)

    async def store(self, new: NewBlock, *, caller: str) -> None:
        """Store a block for a caller, and where its tasks are, unless the app was forgotten since its fetch began.

        If Redis is unavailable, the block stays in memory only. Beyond the caller's share, it is kept briefly, and in
        Redis only.
        """
        if new.generation != self.generation(new.key.app) or not new.puts:
            return
        try:
            if isinstance(new.key, BlockKey) and isinstance(new.kept.stored, Block):
                name = self._cache.block_name(new.key.app, new.redis_key)
                put_places = self._put_places(new, new.kept.stored, name=name)
                await asyncio.gather(self._put_counted(new, name=name, caller=caller), put_places)
            else:  # refusals and single tasks are small, and not counted
                await self._cache.put_all(new.puts)
        except StoreUnavailable as exc:
            log.warning("cache.not_stored", app=new.key.app, detail=exc.detail)

    async def _put_counted(self, new: NewBlock, *, name: str, caller: str) -> None:
        """Store a block of a list, and count it for the caller."""
        kept_ms = None
        if self._shares is not None:
            kept_ms = await self._shares.put(
                new.puts,
                name=name,
                app=new.key.app,
                caller=caller,
                longest_ms=longest_ms(self._lifetimes),
            )
        if kept_ms is None:
            await self._cache.put_all(new.puts)
        elif kept_ms < new.puts[0].ttl_ms:
            self._memory.drop(new.redis_key)

    async def end(self, query: Query) -> CachedBlock:
        """Return the end of a query's list according to its newest block. Raise StoreUnavailable."""
        return await self._cache.get(self.redis_key(BlockKey(query=query, index=END)))

    def _encoded(self, redis_key: str, stored: Stored) -> Put | None:
        return self._cache.encoded(redis_key, stored, ttl_ms=keep_for_ms(stored, lifetimes=self._lifetimes))

    def _encoded_end(self, key: CacheKey, stored: Stored) -> Put | None:
        if not isinstance(key, BlockKey) or not isinstance(stored, Block):
            return None
        end = msgspec.structs.replace(
            stored, settled=False, ends=(), body=b"", ids=b"", codes=b"", left_out=0, unfinished=False
        )
        return self._encoded(self.redis_key(BlockKey(query=key.query, index=END)), end)

    async def _put_places(self, new: NewBlock, block: Block, *, name: str) -> None:
        if self._places is None:
            return
        place = TaskPlace(block=name, fetched_at_ms=block.fetched_at_ms)
        with suppress(StoreUnavailable):  # logged for the block itself
            await self._places.put(new.key.app, block.task_ids(), place, ttl_ms=new.puts[0].ttl_ms)

    def _remember(self, app: str, redis_key: str, kept: CachedBlock, *, finds_tasks: bool) -> None:
        if kept.stored is not None:
            ends_in_s = keep_for_ms(kept.stored, lifetimes=self._lifetimes) / 1000
            self._memory.put(redis_key, kept, app=app, ends_in_s=ends_in_s, finds_tasks=finds_tasks)


def _newer(kept: CachedBlock, listed: Block | None) -> CachedBlock:
    """Return the task from a list if that is newer than the one under its own key, but keep the head of the latter."""
    if listed is None or (kept.stored is not None and kept.stored.fetched_at_ms >= listed.fetched_at_ms):
        return kept
    return CachedBlock(stored=listed, head=kept.head)
