"""The HTTP side around a fake gateway: in process, or behind the production server."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from service.callers.authenticator import Authenticator
from service.callers.table import CallerTable, table_of
from service.model.callers import Authenticated, Caller
from service.model.errors import Unauthenticated
from service.observe.access_log import log_requests
from service.observe.request import RequestRecord
from service.server.asgi import Lifespan
from service.server.http_server import HttpServer, empty_refusal
from service.server.lifecycle import limits_of
from service.server.listening import listening_socket
from service.settings import BudgetSettings, CallerSettings, ServerSettings, WatchSettings
from service.usage.counts import AddToColumn
from service.watch.feeds import Feeds
from service.watch.version_store import VersionStore
from service.web.middleware import RequestMiddleware
from service.web.settings import WebSettings, default_web_settings
from service.web.site import create_web
from tests.http.fake_gateway import NOW_S, FakeGateway
from tests.settings import SHOP, hashed, settings_of
from tests.simulation.memory_redis import MemoryRedis, MemoryStore, Network

KEY = "one-key"
AUTH = {"Authorization": f"Bearer {KEY}"}
OPERATOR_AUTH = {"Authorization": "Bearer operator-key"}
MANY_AUTH = {"Authorization": "Bearer two-key"}


class SlowToForce:
    """Callers without permission to force a fetch."""

    generation = 0

    async def refresh(self) -> None:
        """Do nothing: there is nothing to refresh."""

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Nothing changes."""
        del changed
        return lambda: None

    def authenticate_cached(self, authorization: bytes | None) -> Authenticated | None:
        """Return None: no credential is known without a check."""
        return None

    def identify(self, authorization: bytes | None) -> Caller:
        """Return the same caller for any credential."""
        if authorization is None:
            raise Unauthenticated
        return Caller(
            name="meek", apps=frozenset(("shop",)), weight=1.0, waiting_max=5, wait_max_s=30.0, may_force=False
        )


@dataclass
class Web:
    """The HTTP side around a fake gateway, with what it observed."""

    gateway: FakeGateway = field(default_factory=FakeGateway)
    settings: WebSettings = field(default_factory=default_web_settings)
    callers: Any = None
    observed: list[RequestRecord] = field(default_factory=list)
    watched: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Watches' usage of the app shop, by caller and column."""

    def __post_init__(self) -> None:
        self.callers = self.callers or key_callers()
        self.feeds = feeds_over(self.gateway, usage={"shop": self._count_usage})
        self.app: RequestMiddleware = create_web(
            self.gateway,
            self.callers,
            lambda: self.settings,
            feeds=self.feeds,
            clock=lambda: NOW_S,
            observers=[lambda seen: log_requests([seen]), self.observed.append],
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://gateway")

    def _count_usage(self, caller: str, column: str, number: int) -> None:
        self.watched[caller, column] += number

    async def get(self, path: str = "/tasks", headers: Mapping[str, str] | None = None) -> httpx.Response:
        """GET with the key of the caller who may read one app."""
        return await self.client.get(path, headers={**AUTH, **(headers or {})})

    @asynccontextmanager
    async def on_a_socket(self) -> AsyncIterator[int]:
        """Serve on a real port."""
        async with served(self.app, refusal=self.app.refuse) as port:
            yield port


def feeds_over(gateway: Any, *, usage: Mapping[str, AddToColumn] | None = None) -> Feeds:
    """Watched lists over a gateway, on a replica without Redis."""
    redis = MemoryRedis(lambda: NOW_S)
    redis.is_away = True
    store = MemoryStore(redis, Network(random.Random(1), delay_s=(0.0, 0.0)))
    return Feeds(
        gateway,
        VersionStore(store, prefix="t", keep_s=60.0),
        settings=WatchSettings(),
        block_size=100,
        clock=lambda: NOW_S,
        usage=usage,
    )


@asynccontextmanager
async def served(
    app: Any, *, response_cache: Any = None, refusal: Any = empty_refusal, **changes: float
) -> AsyncIterator[int]:
    """Serve an application on a real port with the production server, in this event loop; `changes` are settings."""
    settings = msgspec.structs.replace(ServerSettings(), **changes)
    server = HttpServer(app, limits_of(settings), refusal=refusal, response_cache=response_cache)
    with listening_socket("127.0.0.1", 0, reader_timeout_s=settings.reader_timeout_s) as listening:
        lifespan = Lifespan(app)
        await lifespan.startup()
        await server.open(listening, backlog=128)
        try:
            yield listening.getsockname()[1]
        finally:
            server.stop()
            server.abort()
            async with asyncio.timeout(20):
                await server.ended()
                await lifespan.shutdown()


def key_callers(callers: Mapping[str, CallerSettings] | None = None) -> Authenticator:
    """Return these callers; by default one caller with one app, and another with two."""
    return Authenticator(key_table(callers), issuer=None, clock=lambda: NOW_S)


def key_table(callers: Mapping[str, CallerSettings] | None = None) -> CallerTable:
    """Return the table of these callers, or of the same defaults."""
    settings = settings_of(
        apps={"shop": SHOP, "news": SHOP},
        callers=callers
        or {
            "single": CallerSettings(keys=(hashed(KEY),), apps=("shop",)),
            "several": CallerSettings(keys=(hashed("two-key"), hashed("old-key")), apps=("shop", "news"), weight=3.0),
            "operator": CallerSettings(keys=(hashed("operator-key"),), apps=(), operator=True),
        },
        budget=BudgetSettings(waiting_max=5, wait_max_s=30.0),
    )
    return table_of(settings)


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes on a separate connection and read until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    try:
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
