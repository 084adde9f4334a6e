"""Blocks in Redis: their keys, their encoding, and the handling of unreadable values."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import sha256

import structlog

from service.cache.caller_shares import shares_of
from service.cache.codec import CHANCE_BYTES, CorruptBlock, decode_value, encode_value
from service.model.blocks import HEAD_BYTES, NOTHING, BlockKey, CachedBlock, CacheKey, Stored, TaskKey
from service.model.queries import Query
from service.store.interfaces import VALUE_MAX_BYTES, Put, Store

log = structlog.get_logger()


class RedisBlocks:
    """Reads and writes blocks through a store. Raises StoreUnavailable as the store does.

    Counters since the start: `corrupt` values that could not be read (each reason is logged once), including `foreign`
    ones in another format, and `oversized` blocks that were not stored.
    """

    def __init__(
        self,
        store: Store,
        *,
        prefix: str,
        block_size: int,
        value_max_bytes: int = VALUE_MAX_BYTES,
        chance: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """`prefix` starts all keys; `chance` returns the given number of random bytes."""
        self._store = store
        self._prefix = prefix
        self._block_size = block_size
        self._value_max_bytes = value_max_bytes
        self._chance = chance
        self.corrupt = 0
        self.foreign = 0
        self.oversized = 0
        self._logged: set[str] = set()

    def redis_key(self, key: CacheKey) -> str:
        """Return the key in Redis. It shows the app, for the hash tag, and a task's id, but nothing of a query."""
        match key:
            case BlockKey(query=query, index=index):
                return self.named(query.app, f"{_digest(self._block_size, query)}:{index}")
            case TaskKey(app=app, id=task_id):
                return self.named(app, f"t:{task_id}")

    def block_name(self, app: str, redis_key: str) -> str:
        """Return the end of a block's key in Redis, which distinguishes it from the app's others."""
        return redis_key.removeprefix(self.named(app, ""))

    def named(self, app: str, name: str) -> str:
        """Return the key in Redis of the app's block with this name."""
        return f"{self._prefix}:{{{app}}}:b:{name}"

    async def get(self, redis_key: str) -> CachedBlock:
        """Return the block stored under a key in Redis, if it is readable."""
        return self._read(await self._store.get(redis_key))

    def encoded(self, redis_key: str, stored: Stored, *, ttl_ms: int) -> Put | None:
        """Return what to store for a block, which begins with its head; None if it is too large to store."""
        value = encode_value(stored, chance=self._chance(CHANCE_BYTES))
        if len(value) > self._value_max_bytes:
            self.oversized += 1
            return None
        return Put(key=redis_key, value=value, ttl_ms=ttl_ms)

    async def put_all(self, puts: Sequence[Put]) -> None:
        """Store encoded blocks of one app, in one round trip."""
        await self._store.put_all(puts)

    async def drop_app(self, app: str) -> int:
        """Delete all blocks of an app, and the counts of whose they are; return how many blocks there were."""
        dropped = await self._store.delete_matching(self.named(app, ""))
        await self._store.delete_matching(shares_of(self._prefix, app))
        return dropped

    def _read(self, value: bytes | None) -> CachedBlock:
        if value is None:
            return NOTHING
        head = value[:HEAD_BYTES]
        stored = decode_value(value)
        if isinstance(stored, CorruptBlock):
            if stored.reason not in self._logged:
                self._logged.add(stored.reason)
                log.warning("cache.corrupt", reason=stored.reason)
            self.corrupt += 1
            self.foreign += stored.reason == "format"
            return CachedBlock(stored=None, head=head)
        return CachedBlock(stored=stored, head=head)


@lru_cache(maxsize=4096)
def _digest(block_size: int, query: Query) -> str:
    """Return what distinguishes a query's blocks of this size from all others; cached, since every request needs it."""
    return sha256(f"{block_size}\n{query.identity}".encode()).hexdigest()[:32]
