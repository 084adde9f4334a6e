"""Looks up blocks in this replica's memory, then in Redis."""

import asyncio

import msgspec
import structlog

from service.cache.caller_shares import CallerShares
from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.model.blocks import Block, CachedBlock, Stored
from service.model.errors import StoreUnavailable
from service.model.freshness import Lifetimes, keep_for_ms, longest_ms
from service.model.queries import Query

END = -1
"""The index under which the end of a query's list is stored: its newest block, without its tasks."""

log = structlog.get_logger()


class BlockCache:
    """Keeps blocks for as long as any request may be served from them, within the `shares` of callers, if given."""

    def __init__(
        self, cache: RedisBlocks, memory: MemoryBlocks, *, lifetimes: Lifetimes, shares: CallerShares | None = None
    ) -> None:
        self._cache = cache
        self._memory = memory
        self._lifetimes = lifetimes
        self._shares = shares
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
        if self._shares is not None:
            self._shares.forget(app)

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

    async def put(
        self, query: Query, index: int, stored: Stored, *, caller: str, generation: int
    ) -> CachedBlock | None:
        """Store a block for a caller and with it the end of its list; in memory only if Redis is unavailable.

        A block beyond the caller's share is kept briefly, and in Redis only. Return None if the blocks were forgotten
        since `generation`, in which the fetch began: it must not be served.
        """
        if generation != self.generation(query.app):
            return None
        keep_ms = keep_for_ms(stored, lifetimes=self._lifetimes)
        ttl_ms = await self._ttl_ms(query, index, stored, caller=caller, keep_ms=keep_ms)
        head, _ = await asyncio.gather(
            self._put(query, index, stored, ttl_ms=ttl_ms), self._put_end(query, stored, ttl_ms=ttl_ms)
        )
        if generation != self.generation(query.app):
            return None
        kept = CachedBlock(stored=stored, head=head)
        if ttl_ms == keep_ms:
            self._remember(query, index, kept)
        return kept

    async def end(self, query: Query) -> CachedBlock:
        """Return the end of a query's list according to its newest block. Raise StoreUnavailable."""
        return await self._cache.get(query, END)

    async def _ttl_ms(self, query: Query, index: int, stored: Stored, *, caller: str, keep_ms: int) -> int:
        """Return how long Redis is to keep a block. Refusals are small, and not counted."""
        if self._shares is None or not isinstance(stored, Block):
            return keep_ms
        longest = longest_ms(self._lifetimes)
        return await self._shares.keep_ms(
            self.key(query, index), app=query.app, caller=caller, keep_ms=keep_ms, longest_ms=longest
        )

    async def _put(self, query: Query, index: int, stored: Stored, *, ttl_ms: int) -> bytes:
        try:
            return await self._cache.put(query, index, stored, ttl_ms=ttl_ms)
        except StoreUnavailable as exc:
            log.warning("cache.not_stored", app=query.app, detail=exc.detail)
            return b""

    async def _put_end(self, query: Query, stored: Stored, *, ttl_ms: int) -> None:
        if isinstance(stored, Block):
            end = msgspec.structs.replace(
                stored, settled=False, ends=(), body=b"", ids=b"", codes=b"", left_out=0, unfinished=False
            )
            await self._put(query, END, end, ttl_ms=ttl_ms)

    def _remember(self, query: Query, index: int, kept: CachedBlock) -> None:
        if kept.stored is not None:
            ends_in_s = keep_for_ms(kept.stored, lifetimes=self._lifetimes) / 1000
            self._memory.put(self.key(query, index), kept.stored, app=query.app, head=kept.head, ends_in_s=ends_in_s)
