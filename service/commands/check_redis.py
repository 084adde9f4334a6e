"""`taskgate check --redis`: whether Redis allows what a gateway does and is configured as it should be."""

import os

from service.configuration.passwords import passwords_of
from service.model.errors import StoreUnavailable
from service.settings import Settings
from service.store.inspection import advice, refusals
from service.store.redis_store import RedisStore
from service.telemetry.logs import configure


async def try_redis(settings: Settings) -> int:
    """Print refused commands and advice; return 1 if something is refused."""
    configure("critical", as_json=False)  # faults are printed here, in plain words
    passwords = passwords_of(settings.redis, os.environ)
    store = RedisStore(settings.redis, password=passwords.redis, sentinel_password=passwords.sentinel)
    try:
        refused = await refusals(store, prefix=settings.redis.prefix)
        warnings = [text async for text in advice(store, settings.redis)]
    except StoreUnavailable as exc:
        refused, warnings = [exc.detail], []
    finally:
        await store.aclose()
    for line in refused:
        print(f"redis: {line}")
    for text in warnings:
        print(f"redis: warning: {text}")
    if not refused:
        print("redis: ok")
    return 1 if refused else 0
