"""`taskgate check --redis`: whether Redis allows what a gateway does and is configured as it should be."""

import os

from service.configuration.clients import redis_store_of
from service.model.errors import StoreUnavailable
from service.settings import Settings
from service.store.inspection import redis_advice, redis_refusals
from service.telemetry.logs import configure

ERROR_MAX_CHARS = 300
"""How much of an error of Redis, or of the connection to it, is printed."""


async def check_redis(settings: Settings) -> int:
    """Print refused commands and advice; return 1 if something is refused."""
    configure("critical", as_json=False)  # faults are printed here, in plain words
    store = redis_store_of(settings.redis, os.environ)
    try:
        refused = await redis_refusals(store, prefix=settings.redis.prefix)
        warnings = [text async for text in redis_advice(store, settings.redis)]
    except StoreUnavailable as exc:
        why = "" if exc.__cause__ is None else str(exc.__cause__)[:ERROR_MAX_CHARS]
        refused, warnings = [f"{exc.detail}: {why}" if why else exc.detail], []
    finally:
        await store.aclose()
    for line in refused:
        print(f"redis: {line}")
    for text in warnings:
        print(f"redis: warning: {text}")
    if not refused:
        print("redis: ok")
    return 1 if refused else 0
