"""Encoded blocks for tests of the cache."""

import time
from typing import Any

import msgspec

from service.cache.block_cache import BlockCache
from service.model.blocks import Block, CacheKey, Stored
from service.model.queries import Range

_ONE = Block(
    fetched_at_ms=0,
    range=Range(since_s=0, until_s=1),
    total=1,
    settled=False,
    ends=(34,),
    body=b'{"id":0,"type":null,"status":null}',
    ids=bytes(8),
    codes=b"\x05",
)
TWO_TASKS = msgspec.structs.replace(
    _ONE,
    fetched_at_ms=1_748_736_000_000,
    total=2,
    ends=(35, 75),
    body=b'{"id":0,"type":"all","status":null},{"id":1,"type":null,"status":"x","a":2}',
    ids=bytes(15) + b"\x01",
    codes=b"\x05\x06",
)


def one_task(**fields: Any) -> Block:
    """A block of one task, fetched just now, with these fields."""
    return msgspec.structs.replace(_ONE, **({"fetched_at_ms": int(time.time() * 1000)} | fields))


async def keep(cache: BlockCache, key: CacheKey, stored: Stored, *, caller: str = "c0") -> None:
    """Store what was fetched, as a fetch does."""
    new = cache.take(key, stored, generation=cache.generation(key.app))
    assert new is not None
    await cache.store(new, caller=caller)
