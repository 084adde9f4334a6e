"""Checks a Redis server's configuration and our permissions there, to find problems before they cause harm."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from service.model.errors import StoreUnavailable
from service.settings import RedisSettings
from service.store.redis_store import RedisStore

log = structlog.get_logger(__name__)

LISTEN_S = 2.0
"""How long to wait for a subscription to be confirmed."""

# Tries each command that our scripts use, and returns those refused, in the server's own words.
_COMMANDS = """
local key, refused = KEYS[1], {}
local function try(name, ...)
  local answer = redis.pcall(name, ...)
  if type(answer) == 'table' and answer.err then refused[#refused + 1] = string.lower(name) .. ': ' .. answer.err end
end
try('TIME')
try('DEL', key)
try('HSET', key, 'f', '1')
try('HGET', key, 'f')
try('HGETALL', key)
try('HLEN', key)
try('HINCRBY', key, 'f', '1')
try('HDEL', key, 'f')
try('SET', key, 'v')
try('GET', key)
try('GETRANGE', key, '0', '1')
try('PEXPIRE', key, '1000')
try('PTTL', key)
try('DEL', key)
try('ZADD', key, '1', 'v')
try('ZSCORE', key, 'v')
try('ZCARD', key)
try('ZRANGE', key, '[u', '(w', 'BYLEX')
try('ZREM', key, 'w')
try('ZREMRANGEBYSCORE', key, '0', '1')
try('PUBLISH', key, 'v')
return refused
"""


async def redis_refusals(store: RedisStore, *, prefix: str) -> list[str]:
    """Try every command that a gateway uses. Return one line for each that is refused; empty if none is."""
    key = f"{prefix}:{{check}}:b:key"
    found: list[str] = []
    for name, work in (
        ("set", store.put(key, b"v", ttl_ms=1000)),
        ("get", store.get(key)),
        ("scan, unlink", store.delete_matching(f"{prefix}:{{check}}:b:")),
        ("publish", store.publish(key, b"v")),
        ("subscribe", _listens(store, key)),
    ):
        try:
            await work
        except StoreUnavailable as exc:
            found.append(f"{name}: {exc.detail}")
    try:
        found += [line.decode() for line in await store.script(_COMMANDS)([key], []) if isinstance(line, bytes)]
    except StoreUnavailable as exc:
        found.append(f"eval, evalsha: {exc.detail}")
    return found


async def _listens(store: RedisStore, channel: str) -> None:
    listening = asyncio.Event()
    store.listen(channel, lambda _: None, on_gap=listening.set)
    try:
        await asyncio.wait_for(listening.wait(), LISTEN_S)
    except TimeoutError as exc:
        raise StoreUnavailable("refused") from exc


async def redis_advice(store: RedisStore, settings: RedisSettings) -> AsyncIterator[str]:
    """Yield recommended changes to the server's configuration, as far as it may be read.

    Raise StoreUnavailable.
    """
    key = f"{settings.prefix}:{{check}}:key"
    policy = await store.setting("maxmemory-policy", key=key)
    if policy == "noeviction":
        yield (
            "maxmemory-policy is noeviction: once memory is full, no new page is stored. "
            "Set volatile-lru, and a maxmemory"
        )
    elif policy is not None and policy.startswith("allkeys-"):
        yield (
            f"maxmemory-policy is {policy}: it may evict the budget's state, which costs a pause each time. "
            "Set volatile-lru"
        )
    if settings.mode == "sentinel" and await store.setting("min-replicas-to-write", key=key) == "0":
        yield (
            "min-replicas-to-write is 0: in a network split, two masters would each give out all calls. "
            "Set it to 1, and min-replicas-max-lag to a few seconds"
        )


async def log_redis_advice(store: RedisStore, settings: RedisSettings) -> None:
    """Log the advice; log nothing if Redis is unavailable."""
    try:
        async for text in redis_advice(store, settings):
            log.warning("redis.advice", advice=text)
    except StoreUnavailable:
        return


@asynccontextmanager
async def logging_redis_advice(store: RedisStore, settings: RedisSettings) -> AsyncIterator[None]:
    """Log the advice in the background within the context."""
    task = asyncio.create_task(log_redis_advice(store, settings))
    try:
        yield
    finally:
        await task
