"""The lifespan of an ASGI application, without a server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.server.asgi import Lifespan


@asynccontextmanager
async def lifespan(asgi: Any) -> AsyncIterator[None]:
    """Start an application as the server does, and shut it down."""
    life = Lifespan(asgi)
    await life.startup()
    try:
        yield
    finally:
        await life.shutdown()
