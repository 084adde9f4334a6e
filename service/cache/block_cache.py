"""Looks up blocks in this replica's memory, then in Redis."""

import asyncio

import msgspec
import structlog

from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.model.blocks import HEAD_BYTES, Block, CachedBlock, Stored
from service.model.errors import StoreUnavailable
from service.model.freshness import Lifetimes, keep_for_ms
from service.model.queries import Query
from service.store.interfaces import Put

END = -1
"""The index under which the end of a query's list is stored: its newest block, without its tasks."""

log = structlog.get_logger()


class NewBlock(msgspec.Struct, frozen=True, kw_only=True):
    """A fetched block that this replica serves already, and the values to store in Redis, for the others."""

    kept: CachedBlock
    app: str
    generation: int
    puts: tuple[Put, ...]


class BlockCache:
    """Keeps blocks for as long as any request may be served from them."""

    def __init__(self, cache: RedisBlocks, memory: MemoryBlocks, *, lifetimes: Lifetimes) -> None:
        self._cache = cache
        self._memory = memory
        self._lifetimes = lifetimes
        self._generations: dict[str, int] = {}
        self._reading: dict[tuple[str, int], asyncio.Task[CachedBlock]] = {}

    def generation(self, app: str) -> int:
        """Return how often the app's blocks were dropped; results of fetches begun in an earlier generation are
        discarded."""
        return self._generations.get(app, 0)

    def forget(self, app: str) -> None:
        """Forget all of the app's blocks in memory, and those being read or fetched."""
        self._generations[app] = self.generation(app) + 1
        self._memory.drop_app(app)

    def set_lifetimes(self, lifetimes: Lifetimes) -> None:
        """Use these lifetimes for blocks stored from now on."""
        self._lifetimes = lifetimes

    def key(self, query: Query, index: int) -> str:
        """Return the block's key in Redis, which also identifies it elsewhere."""
        return self._cache.key(query, index)

    def recall(self, query: Query, index: int) -> CachedBlock | None:
        """Return the block from this replica's memory; does no I/O."""
        return self._memory.get(self.key(query, index))

    async def get(self, query: Query, index: int) -> CachedBlock:
        """Return the block as Redis has it, sharing a read that is under way. Raise StoreUnavailable.

        After the app's blocks were forgotten, a read that began before is not shared.
        """
        asked = self.key(query, index), self.generation(query.app)
        task = self._reading.get(asked)
        if task is None:
            task = self._reading[asked] = asyncio.create_task(self.look(query, index))
            task.add_done_callback(lambda read: self._read(asked, read))
        return await asyncio.shield(task)

    def _read(self, asked: tuple[str, int], task: "asyncio.Task[CachedBlock]") -> None:
        """Drop a finished read and mark its error as retrieved: its waiters have received it, or none are left."""
        del self._reading[asked]
        if not task.cancelled():
            task.exception()

    async def look(self, query: Query, index: int) -> CachedBlock:
        """Return the block as Redis has it now, with a new read. Raise StoreUnavailable."""
        generation = self.generation(query.app)
        kept = await self._cache.get(query, index)
        if generation == self.generation(query.app):
            self._remember(query, index, kept)
        return kept

    def take(self, query: Query, index: int, stored: Stored, *, generation: int) -> NewBlock | None:
        """Keep a fetched block in memory; `store` must follow. With it goes the end of its list.

        Return None if the blocks were forgotten since `generation`, in which the fetch began: it must not be served.
        """
        if generation != self.generation(query.app):
            return None
        put = self._encoded(query, index, stored)
        end = self._encoded(query, END, _end_of(stored)) if isinstance(stored, Block) else None
        kept = CachedBlock(stored=stored, head=b"" if put is None else put.value[:HEAD_BYTES])
        self._remember(query, index, kept)
        puts = tuple(each for each in (put, end) if each is not None)
        return NewBlock(kept=kept, app=query.app, generation=generation, puts=puts)

    async def store(self, new: NewBlock) -> None:
        """Store a block in Redis, unless the app's blocks were forgotten since its fetch began.

        If Redis is unavailable, the block stays in memory only.
        """
        if new.generation != self.generation(new.app) or not new.puts:
            return
        try:
            await self._cache.put_all(new.puts)
        except StoreUnavailable as exc:
            log.warning("cache.not_stored", app=new.app, detail=exc.detail)

    def _encoded(self, query: Query, index: int, stored: Stored) -> Put | None:
        return self._cache.encoded(query, index, stored, ttl_ms=keep_for_ms(stored, lifetimes=self._lifetimes))

    async def end(self, query: Query) -> CachedBlock:
        """Return the end of a query's list according to its newest block. Raise StoreUnavailable."""
        return await self._cache.get(query, END)

    def _remember(self, query: Query, index: int, kept: CachedBlock) -> None:
        if kept.stored is not None:
            ends_in_s = keep_for_ms(kept.stored, lifetimes=self._lifetimes) / 1000
            self._memory.put(self.key(query, index), kept.stored, app=query.app, head=kept.head, ends_in_s=ends_in_s)


def _end_of(block: Block) -> Block:
    return msgspec.structs.replace(
        block, settled=False, ends=(), body=b"", ids=b"", codes=b"", left_out=0, unfinished=False
    )
