"""The guarantees of every gateway: the fake one that tests of the HTTP side use, and the real one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from service.app import create_app
from service.model.callers import Caller
from service.model.calls import CallKind
from service.model.errors import UnknownApp, UnknownTask
from service.model.freshness import CacheDirectives
from service.model.origin import FetchCost, Origin
from service.model.pages import Chunk, Page, PageRequest, Source, TaskRequest
from service.model.queries import FromNow, Query, Slice
from service.model.streams import TaskFilter, task_labels_of
from service.model.tasks import Task
from service.sandbox.faults import Latency
from service.sandbox.serving import sandbox_upstream
from service.sandbox.upstream import SandboxOptions
from service.settings import AppSettings, BudgetSettings, CallerSettings, RedisSettings, Settings
from service.web.interfaces import GatewayAPI
from service.web.site import create_web
from tests.control_client import control
from tests.http.fake_gateway import FakeGateway
from tests.lifespan import lifespan
from tests.servers import Server, until
from tests.settings import hashed

BLOCK_SIZE = 100
CALLER = Caller(name="reports", apps=frozenset(("shop",)), weight=1.0, waiting_max=10, wait_max_s=30.0)
DAY_S = 86_400
EVERYTHING = TaskFilter()
QUERY = Query(app="shop", since=FromNow(offset_s=-80 * DAY_S), until=FromNow(offset_s=80 * DAY_S))


class World(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway with two apps, whose shop has a list of 250 tasks.

    `resize` changes its length, `hold_up` delays its calls until the returned function is called, and `stored` waits
    until fetched blocks are stored.
    """

    gateway: GatewayAPI
    resize: Callable[[int], Awaitable[None]]
    hold_up: Callable[[], Awaitable[Callable[[], Awaitable[None]]]]
    stored: Callable[[], Awaitable[None]]


@asynccontextmanager
async def fake_world() -> AsyncIterator[World]:
    """The fake gateway."""
    gateway = FakeGateway()
    gateway.remembers = True
    records = gateway.listed

    async def resize(total: int) -> None:
        gateway.listed = records[:total]

    async def hold_up() -> Callable[[], Awaitable[None]]:
        go = gateway.go = gateway.chunk_outcomes[0] = asyncio.Event()

        async def release() -> None:
            go.set()

        return release

    async def stored() -> None:
        """Everything is stored."""

    yield World(gateway=gateway, resize=resize, hold_up=hold_up, stored=stored)


@asynccontextmanager
async def real_world(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """The gateway as the service assembles it, on a real Redis and the sandbox upstream."""
    gateways: list[GatewayAPI] = []

    def capturing(gateway: GatewayAPI, *others: Any, **named: Any) -> Any:
        gateways.append(gateway)
        return create_web(gateway, *others, **named)

    monkeypatch.setattr("service.app.create_web", capturing)
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(sandbox_upstream(SandboxOptions(tasks=250, window_s=0.1)))
        shop = AppSettings(
            sdkappid=sandbox.app.sdkappid, admin=sandbox.app.admin, base_url=sandbox.base_url, secret_env="SECRET"
        )
        settings = Settings(
            apps={"shop": shop, "news": msgspec.structs.replace(shop, sdkappid=shop.sdkappid + 1)},
            callers={"reports": CallerSettings(keys=(hashed("reports"),), apps=("shop",))},
            redis=RedisSettings(url=server.url, timeout_s=5.0),
            budget=BudgetSettings(window_s=0.1, transit_s=0.05),
        )
        service = create_app(settings, environ={"SECRET": sandbox.app.key})
        await stack.enter_async_context(lifespan(service.asgi))
        (gateway,) = gateways

        async def resize(total: int) -> None:
            await control(sandbox).resize_tasks(shop.sdkappid, total)
            await gateway.drop("shop")

        async def hold_up() -> Callable[[], Awaitable[None]]:
            await control(sandbox).add_fault(Latency(back_ms=2_000))
            return control(sandbox).clear_faults

        async def stored() -> None:
            await until(lambda: bool(server.run("KEYS", "*:b:*")))

        yield World(gateway=gateway, resize=resize, hold_up=hold_up, stored=stored)


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Each kind of gateway."""
    is_fake = request.param == "fake"
    async with fake_world() if is_fake else real_world(request.getfixturevalue("valkey"), monkeypatch) as world:
        yield world


@pytest.fixture
def gateway(world: World) -> GatewayAPI:
    """The gateway of the world."""
    return world.gateway


def ask(
    offset: int = 0, limit: int = 20, *, only: TaskFilter = EVERYTHING, app: str = "shop", cost: FetchCost | None = None
) -> PageRequest:
    """Return a request for a slice."""
    return PageRequest(
        caller=CALLER,
        query=msgspec.structs.replace(QUERY, app=app),
        slice=Slice(offset=offset, limit=limit),
        patience_s=30.0,
        directives=CacheDirectives(),
        only=only,
        origin=Origin(request_id="r", traceparent="", cost=cost),
    )


def records_of(page: Page) -> list[bytes]:
    """Return the tasks of a page as JSON texts."""
    return [bytes(raw) for raw in msgspec.json.decode(b"[" + page.body + b"]", type=list[msgspec.Raw])]


async def whole_list(gateway: GatewayAPI) -> list[bytes]:
    """Read the list chunk by chunk."""
    records: list[bytes] = []
    following: int | None = 0
    while following is not None:
        chunk = await gateway.chunk(ask(following, BLOCK_SIZE))
        records += chunk.records
        following = chunk.following
    return records


@pytest.mark.parametrize("total", [0, 1, 99, 100, 101, 200, 250])
async def test_chunks_are_the_whole_list(world: World, total: int) -> None:
    """Each chunk ends where its block does and names the next; the last names none, and together they are the list."""
    await world.resize(total)
    chunks = [await world.gateway.chunk(ask())]
    assert [len(chunk.records) for chunk in chunks] == [min(total, 20)]
    records = await whole_list(world.gateway)
    assert len({msgspec.json.decode(record, type=Task).id for record in records}) == total
    for offset in range(0, max(total, 1), BLOCK_SIZE):
        chunk = await world.gateway.chunk(ask(offset, BLOCK_SIZE))
        assert chunk.total == total
        assert chunk.following == (offset + BLOCK_SIZE if offset + BLOCK_SIZE < total else None)
        assert (chunk.is_short, chunk.is_empty, chunk.missing) == (False, total == 0, 0)
        assert list(chunk.records) == records[offset : offset + BLOCK_SIZE]


@pytest.mark.parametrize(("offset", "limit"), [(0, 5), (30, 70), (95, 1), (90, 20), (199, 2), (150, 100), (240, 20)])
async def test_slices_are_parts_of_the_list(gateway: GatewayAPI, offset: int, limit: int) -> None:
    """A page has the tasks of its slice, in order, also across blocks; a chunk has those of its first block."""
    records = await whole_list(gateway)
    page = await gateway.page(ask(offset, limit))
    assert records_of(page) == records[offset : offset + limit]
    assert (page.query, page.slice, page.only) == (QUERY, Slice(offset=offset, limit=limit), EVERYTHING)
    assert (page.total, page.missing, page.consistent) == (250, 0, True)
    block_end = (offset // BLOCK_SIZE + 1) * BLOCK_SIZE
    chunk = await gateway.chunk(ask(offset, limit))
    assert list(chunk.records) == records[offset : min(offset + limit, block_end)]
    assert gateway.page_from_memory(ask(offset, limit)) == page


async def test_a_slice_beyond_the_end_is_empty(gateway: GatewayAPI) -> None:
    """A slice after the last task is empty, and has the total."""
    page = await gateway.page(ask(1_000))
    assert (page.body, page.total, page.missing) == (b"", 250, 0)
    chunk = await gateway.chunk(ask(1_000))
    assert (chunk.records, chunk.total, chunk.following, chunk.is_empty) == ((), 250, None, True)


@pytest.mark.parametrize("only", [TaskFilter(statuses=("pending",)), TaskFilter(types=("tag", "user"))])
async def test_filters_count_what_matches(gateway: GatewayAPI, only: TaskFilter) -> None:
    """Total and slice of a filtered page count only the tasks that match."""
    matching = [record for record in await whole_list(gateway) if only.takes(task_labels_of(record))]
    page = await gateway.page(ask(7, 20, only=only))
    assert records_of(page) == matching[7:27]
    assert (page.total, page.only, page.missing, page.consistent) == (len(matching), only, 0, True)


async def test_stored_pages_are_returned_unchanged(gateway: GatewayAPI) -> None:
    """The second answer is a hit with the time of the first, and says nothing of calls, waits or the budget."""
    first = await gateway.page(ask())
    cost = FetchCost()
    again = await gateway.page(ask(cost=cost))
    assert (again.body, again.fetched_at_ms, again.range) == (first.body, first.fetched_at_ms, first.range)
    assert (again.source, again.stale_reason, again.forward, again.budget) == (Source.HIT, None, None, None)
    assert again.lifetime_s > 0
    assert again.range.since_s < again.range.until_s
    chunk = await gateway.chunk(ask(cost=cost))
    assert (chunk.source, chunk.fetched_at_ms, chunk.range) == (Source.HIT, first.fetched_at_ms, first.range)
    assert chunk.budget is None
    assert gateway.page_from_memory(ask(cost=cost)) == again
    assert cost == FetchCost()


def ask_task(task_id: int, *, app: str = "shop", cost: FetchCost | None = None) -> TaskRequest:
    """Return a request for a task."""
    return TaskRequest(
        caller=CALLER,
        app=app,
        id=task_id,
        patience_s=30.0,
        directives=CacheDirectives(),
        origin=Origin(request_id="r", traceparent="", cost=cost),
    )


async def test_a_task_of_a_stored_list_costs_nothing(gateway: GatewayAPI) -> None:
    """A task whose list is stored costs nothing, and is as old as the list."""
    page = await gateway.page(ask(30))
    cost = FetchCost()
    for record in records_of(page):
        found = await gateway.task(ask_task(task_labels_of(record).id, cost=cost))
        assert (found.app, found.body, found.fetched_at_ms) == ("shop", record, page.fetched_at_ms)
        assert (found.source, found.stale_reason, found.forward, found.budget) == (Source.HIT, None, None, None)
        assert found.lifetime_s > 0
    assert cost == FetchCost()


async def test_a_missing_task_is_unknown(gateway: GatewayAPI) -> None:
    """A task that does not exist is unknown, also when it is requested again."""
    for _ in range(2):
        with pytest.raises(UnknownTask):
            await gateway.task(ask_task(3))


@pytest.mark.parametrize("use", ["page", "chunk"])
async def test_waiting_requests_may_be_cancelled(world: World, use: str) -> None:
    """Cancelling one of two requests leaves the other waiting, which is answered once the upstream is."""
    get: Callable[[PageRequest], Awaitable[Page | Chunk]] = getattr(world.gateway, use)
    release = await world.hold_up()
    cancelled, other = (asyncio.ensure_future(get(ask())) for _ in range(2))
    for _ in range(10):
        await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert not other.done()
    await release()
    assert (await asyncio.wait_for(other, 20)).total == 250


async def test_unknown_apps_are_rejected(gateway: GatewayAPI) -> None:
    """No use case serves an app that is not configured; views need the right to read the app, too."""
    for work in (
        gateway.page(ask(app="nowhere")),
        gateway.chunk(ask(app="nowhere")),
        gateway.task(ask_task(1, app="nowhere")),
        gateway.drop("nowhere"),
        *(gateway.budget(app, CALLER, kind) for app in ("nowhere", "news") for kind in CallKind),
        *(
            gateway.usage(app, caller=CALLER, only=None, since_s=0, now_s=3600, kind=kind)
            for app in ("nowhere", "news")
            for kind in CallKind
        ),
    ):
        with pytest.raises(UnknownApp):
            await work
    with pytest.raises(UnknownApp):
        gateway.page_from_memory(ask(app="nowhere"))


async def test_apps_are_those_that_the_caller_may_read(gateway: GatewayAPI) -> None:
    """Apps are sorted by name; those that do not exist are left out."""
    assert [app.name for app in gateway.apps(CALLER)] == ["shop"]
    both = msgspec.structs.replace(CALLER, apps=frozenset(("shop", "news", "nowhere")))
    assert [app.name for app in gateway.apps(both)] == ["news", "shop"]


@pytest.mark.parametrize("kind", CallKind)
async def test_budgets_name_the_caller_first(gateway: GatewayAPI, kind: CallKind) -> None:
    """A view has the caller itself by name, all others combined, and the figures of a working Redis."""
    await gateway.page(ask())
    view = await gateway.budget("shop", CALLER, kind)
    assert (view.app, view.kind, view.calls, view.redis_away) == ("shop", kind, 5, False)
    assert [caller.name for caller in view.callers] == ["reports"]
    assert view.others.name is None
    assert view.free is not None
    assert 0 <= view.free <= view.calls
    assert view.pause_s == 0.0
    assert view.condition.state == "serving"
    assert view.condition.detail


@pytest.mark.parametrize("kind", CallKind)
async def test_usage_has_no_gaps(gateway: GatewayAPI, kind: CallKind) -> None:
    """Minutes follow each other from the one of `since_s` to the present one, whether anything was used or not."""
    now_s = int(time.time())
    view = await gateway.usage("shop", caller=CALLER, only="reports", since_s=now_s - 600, now_s=now_s, kind=kind)
    starts_s = [part.start_s for part in view.minutes]
    assert starts_s == list(range((now_s - 600) // 60 * 60, now_s + 1, 60))
    assert (view.since_s, view.until_s) == (starts_s[0], now_s)
    assert (view.app, view.kind, view.only, view.redis_away, view.hours) == ("shop", kind, "reports", False, ())


async def test_the_usage_of_an_hour_is_by_minute_however_late_it_is_requested(gateway: GatewayAPI) -> None:
    """The hour ends when the request came, and not when the gateway looks at its clock."""
    now_s = int(time.time()) - 2
    view = await gateway.usage("shop", caller=CALLER, only=None, since_s=now_s - 3600, now_s=now_s, kind=CallKind.LIST)
    assert view.hours == ()
    assert len(view.minutes) == 60


async def test_a_drop_counts_what_was_stored(world: World) -> None:
    """After a drop, pages are served as before."""
    before = await world.gateway.page(ask())
    await world.stored()
    assert await world.gateway.drop("shop") > 0
    assert (await world.gateway.page(ask())).body == before.body


async def test_readiness_names_all_apps(gateway: GatewayAPI) -> None:
    """All apps are listed by name; those that cannot be fetched have a reason."""
    readiness = gateway.readiness()
    assert (readiness.ready, readiness.redis) == (True, "ok")
    assert [app.name for app in readiness.apps] == ["news", "shop"]
    assert all(app.ok == (not app.detail) for app in readiness.apps)
