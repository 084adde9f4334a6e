"""The lifespan of an ASGI application, without a server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar.types import ASGIApp


@asynccontextmanager
async def lifespan(asgi: ASGIApp) -> AsyncIterator[None]:
    """Start an application as a server would, and shut it down."""
    sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    running = asyncio.create_task(asgi({"type": "lifespan", "asgi": {"version": "3.0"}}, sent.get, received.put))
    await sent.put({"type": "lifespan.startup"})
    assert (await received.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await sent.put({"type": "lifespan.shutdown"})
        assert (await received.get())["type"] == "lifespan.shutdown.complete"
        await running
