"""How long a store takes to answer again."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from service.model.errors import StoreUnavailable


async def answers(call: Callable[[], Awaitable[object]], *, within_s: float = 20.0) -> float:
    """Return the seconds until a call succeeds, tried every 10 ms."""
    started_s = time.monotonic()
    while True:
        try:
            await call()
            return time.monotonic() - started_s
        except StoreUnavailable:
            assert time.monotonic() - started_s < within_s
            await asyncio.sleep(0.01)
