"""A fake gateway, and the HTTP side around it: in process, or behind the production server."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from service.callers.authenticator import Authenticator
from service.callers.table import Table, table_of
from service.model.budgets import AppCondition, BudgetView, CallerStanding, RecentCalls, UsageView, Worst
from service.model.callers import AppInfo, Authenticated, Caller
from service.model.errors import StoreUnavailable, Unauthenticated
from service.model.origin import FetchCost
from service.model.pages import AppState, Chunk, Page, PageRequest, Readiness, Source
from service.model.queries import Range
from service.model.tasks import Task
from service.observe.access_log import log_requests
from service.observe.request import RequestRecord
from service.server.addresses import listening_socket
from service.server.asgi import Lifespan
from service.server.http_server import HttpServer, refuse_plainly
from service.server.lifecycle import bounds_of
from service.settings import (
    AppSettings,
    BudgetSettings,
    CallerSettings,
    RedisSettings,
    ServerSettings,
    Settings,
    WatchSettings,
)
from service.watch.feeds import Feeds
from service.watch.version_store import VersionStore
from service.web.middleware import RequestMiddleware
from service.web.settings import WebSettings, default_web_settings
from service.web.site import create_web

NOW_S = 1_750_000_000.0
KEY = "one-key"
AUTH = {"Authorization": f"Bearer {KEY}"}
OPERATOR_AUTH = {"Authorization": "Bearer operator-key"}
MANY_AUTH = {"Authorization": "Bearer two-key"}
TASKS = b'{"id":1,"title":"a"},{"id":2,"title":"b"}'


def task_of(number: int, *, content: bytes = b"{}") -> Task:
    """A task whose id encodes its place; every fifth is pending, every second for a tag."""
    return Task(
        id=1000 + number,
        type="all" if number % 2 else "tag",
        status="dispatched" if number % 5 else "pending",
        title=f"Task {number}",
        description="",
        created_at="2025-05-20T08:30:00Z",
        scheduled_at="2025-06-01T10:00:00Z",
        dispatched=True,
        dispatch_error=None,
        push_task_id=None,
        content=msgspec.Raw(content),
    )


class FakeGateway:
    """Answers every request with the same page, or as configured: with an error, or only when `go` is set."""

    def __init__(self) -> None:
        self.asks: list[PageRequest] = []
        self.changes: dict[str, Any] = {}
        self.changes_of_chunks: dict[str, Any] = {}
        self.view: dict[str, Any] = {}
        self.usage_view: dict[str, Any] = {}
        self.usage_asks: list[tuple[str, str | None, int]] = []
        self.error: Exception | None = None
        self.cost = FetchCost()
        self.go: asyncio.Event | None = None
        self.remembers = False
        self.waiting = 0
        self.cancelled = 0
        self.ready = True
        self.dropped: list[str] = []
        self.listed = tuple(msgspec.json.encode(task_of(number)) for number in range(250))
        self.block_size = 100
        self.told_at: dict[int, dict[str, Any] | Exception | asyncio.Event] = {}

    def recall(self, ask: PageRequest) -> Page | None:
        """The page, if `remembers`."""
        if not self.remembers:
            return None
        self.asks.append(ask)
        return self._page(ask)

    async def page(self, ask: PageRequest) -> Page:
        """The page."""
        self.asks.append(ask)
        self._charge(ask)
        if self.go is not None:
            self.waiting += 1
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
        if self.error is not None:
            raise self.error
        return self._page(ask)

    def _page(self, ask: PageRequest) -> Page:
        values: dict[str, Any] = {
            "query": ask.query,
            "slice": ask.slice,
            "range": Range(since_s=1_747_000_000, until_s=1_752_000_000),
            "total": 95,
            "fetched_at_ms": int(NOW_S * 1000) - 4_000,
            "lifetime_s": 15.0,
            "body": TASKS,
            "source": Source.HIT,
        }
        return Page(**(values | self.changes))

    async def chunk(self, ask: PageRequest) -> Chunk:
        """Up to `block_size` tasks of `listed` from the offset on, or what is configured for that offset."""
        self.asks.append(ask)
        self._charge(ask)
        offset = ask.slice.offset
        told = self.told_at.get(offset, {})
        if isinstance(told, Exception):
            raise told
        if isinstance(told, asyncio.Event):
            try:
                await told.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            told = {}
        size, total = self.block_size, len(self.listed)
        stop = (offset // size + 1) * size
        values: dict[str, Any] = {
            "records": self.listed[offset:stop],
            "total": total,
            "following": stop if stop < total else None,
            "is_short": False,
            "fetched_at_ms": int(NOW_S * 1000) - 4_000,
            "range": Range(since_s=1_747_000_000, until_s=1_752_000_000),
            "lifetime_s": 15.0,
            "source": Source.HIT,
        }
        return Chunk(**(values | self.changes_of_chunks | told))

    def _charge(self, ask: PageRequest) -> None:
        """Let the request have cost `cost`, however it ends."""
        if ask.origin.cost is not None:
            ask.origin.cost.waited_s += self.cost.waited_s
            ask.origin.cost.upstream_s += self.cost.upstream_s
            ask.origin.cost.calls += self.cost.calls

    def apps(self, caller: Caller) -> tuple[AppInfo, ...]:
        """The caller's apps."""
        return tuple(AppInfo(name=name, region="singapore") for name in sorted(caller.apps))

    async def budget(self, app: str, caller: Caller) -> BudgetView:
        """`view`, or a budget of which nothing was used."""
        if self.error is not None:
            raise self.error
        values: dict[str, Any] = {
            "app": app,
            "condition": AppCondition(state="serving", detail="Calls succeed."),
            "recent": RecentCalls(),
            "redis_away": False,
            "calls": 5,
            "window_s": 1.0,
            "free": 5,
            "pause_s": 0.0,
            "pause_reason": "",
            "worst": Worst(),
            "callers": (CallerStanding(name=caller.name),),
            "others": CallerStanding(name=None),
        }
        return BudgetView(**(values | self.view))

    async def usage(self, app: str, *, caller: Caller, only: str | None, since_s: int) -> UsageView:
        """`usage_view`, or no usage at all."""
        if self.error is not None:
            raise self.error
        self.usage_asks.append((app, only, since_s))
        values: dict[str, Any] = {
            "app": app,
            "only": only,
            "redis_away": False,
            "since_s": since_s,
            "until_s": int(NOW_S),
            "callers": (),
            "minutes": (),
        }
        return UsageView(**(values | self.usage_view))

    async def drop(self, app: str) -> int:
        """The configured result."""
        if self.error is not None:
            raise self.error
        self.dropped.append(app)
        return 12

    def readiness(self) -> Readiness:
        """The configured result."""
        apps = (AppState(name="shop", ok=True, detail="ok"), AppState(name="news", ok=False, detail="stopped"))
        return Readiness(ready=self.ready, redis="ok", apps=apps)


class NoStore:
    """A Redis that is unavailable."""

    async def get(self, key: str) -> bytes | None:
        """Nothing can be read."""
        raise StoreUnavailable("unreachable")

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        """Nothing can be stored."""
        raise StoreUnavailable("unreachable")


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
        """Know nobody without a check."""
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

    def __post_init__(self) -> None:
        self.callers = self.callers or key_callers()
        self.feeds = feeds_over(self.gateway)
        self.app: RequestMiddleware = create_web(
            self.gateway,
            self.callers,
            lambda: self.settings,
            feeds=self.feeds,
            clock=lambda: NOW_S,
            observers=[lambda seen: log_requests([seen]), self.observed.append],
        )
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://gateway")

    async def get(self, path: str = "/tasks", headers: Mapping[str, str] | None = None) -> httpx.Response:
        """GET with the key of the caller who may read one app."""
        return await self.client.get(path, headers={**AUTH, **(headers or {})})

    @asynccontextmanager
    async def on_a_socket(self) -> AsyncIterator[int]:
        """Serve on a real port."""
        async with served(self.app, refusal=self.app.refuse) as port:
            yield port


def feeds_over(gateway: Any) -> Feeds:
    """Watched lists over a gateway, on a replica without Redis."""
    return Feeds(
        gateway,
        VersionStore(NoStore(), prefix="t", keep_s=60.0),  # type: ignore[arg-type]
        settings=WatchSettings(),
        block_size=100,
        clock=lambda: NOW_S,
    )


@asynccontextmanager
async def served(
    app: Any, *, at_once: Any = None, refusal: Any = refuse_plainly, **changes: float
) -> AsyncIterator[int]:
    """Serve an application on a real port with the production server, in this event loop; `changes` are settings."""
    settings = msgspec.structs.replace(ServerSettings(), **changes)
    server = HttpServer(app, bounds_of(settings), refusal=refusal, at_once=at_once)
    with listening_socket("127.0.0.1", 0, reader_timeout_s=settings.reader_timeout_s) as listening:
        lifespan = Lifespan(app)
        await lifespan.startup()
        await server.open(listening, backlog=128)
        try:
            yield listening.getsockname()[1]
        finally:
            server.stop()
            server.abort()
            async with asyncio.timeout(10):
                await server.ended()
                await lifespan.shutdown()


def key_callers(callers: Mapping[str, CallerSettings] | None = None) -> Authenticator:
    """Return these callers; by default one caller with one app, and another with two."""
    return Authenticator(key_table(callers), issuer=None, clock=lambda: NOW_S)


def key_table(callers: Mapping[str, CallerSettings] | None = None) -> Table:
    """Return the table of these callers, or of the same defaults."""
    app = AppSettings(sdkappid=1, admin="a", secret_env="S")
    settings = Settings(
        apps={"shop": app, "news": app},
        callers=callers
        or {
            "single": CallerSettings(keys=(_hashed(KEY),), apps=("shop",)),
            "several": CallerSettings(keys=(_hashed("two-key"), _hashed("old-key")), apps=("shop", "news"), weight=3.0),
            "operator": CallerSettings(keys=(_hashed("operator-key"),), apps=(), operator=True),
        },
        redis=RedisSettings(url="redis://127.0.0.1"),
        budget=BudgetSettings(waiting_max=5, wait_max_s=30.0),
    )
    return table_of(settings)


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes on a separate connection and read until the server closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    await writer.drain()
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
