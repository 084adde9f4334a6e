"""A few replicas in virtual time around an upstream scripted by a test: the gateway's own parts, and no randomness."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from service.budget.scheduler.rules import Rules
from service.model.callers import Caller
from service.model.calls import CallKind
from service.model.errors import CallsStopped
from service.model.freshness import CacheDirectives, Lifetimes
from service.model.pages import Chunk, Page, PageRequest
from service.model.queries import At, FromNow, Query, Range, Slice
from service.model.streams import TaskFilter
from service.model.tasks import Listing, Task
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import CallTrace
from tests.simulation.memory_redis import MemoryRedis, Network
from tests.simulation.model_scheduler import ModelScheduler, model_servers
from tests.simulation.sim_replica import Replica
from tests.simulation.virtual_time import run_in_virtual_time
from tests.tasks import bare_task
from tests.windows import most_in_window

APP = "shop"
OTHER_APP = "news"
WALL_S = 1_700_000_000
RULES = Rules(calls=5, window_ms=1_000, transit_ms=200, fetch_lease_ms=4_200)
LIFETIMES = Lifetimes(
    fresh_s=10.0, settled_s=1_000.0, refusal_s=20.0, stale_while_revalidate_s=5.0, stale_if_error_s=60.0
)
FRESH_S = LIFETIMES.fresh_s
RENEWED_S = FRESH_S + LIFETIMES.stale_while_revalidate_s
STOPPED = CallsStopped(app=APP, code=70003, text="wrong signature", advice="", stopped_for_s=30)
NO_CACHE = CacheDirectives(no_cache=True)


class UpstreamCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that was sent: for what, and when (virtual time)."""

    keyword: str
    offset: int
    want: int
    sent_at_s: float
    trace: CallTrace


class ScriptedUpstream:
    """Lists of `total` tasks, dispatched or not; `fails` with an error, or hangs until `goes_on` is set."""

    def __init__(self) -> None:
        self.total = 35
        self.most = 100
        self.dispatched_below = 0
        self.fails: Exception | None = None
        self.stops: CallsStopped | None = None
        self.connect_s = 0.0
        self.took_s = 0.05
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.calls: list[UpstreamCall] = []

    async def fetch(
        self,
        app: UpstreamApp,
        query: Query,
        range_: Range,
        *,
        offset: int,
        want: int,
        before_send: Callable[[], Awaitable[None]],
        trace: CallTrace,
    ) -> Listing:
        """See `Upstream.fetch`."""
        del app, range_
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self.connect_s)
        await before_send()
        call = UpstreamCall(keyword=query.keyword or "", offset=offset, want=want, sent_at_s=loop.time(), trace=trace)
        self.calls.append(call)
        await asyncio.sleep(self.took_s)
        await self.goes_on.wait()
        if self.fails is not None:
            raise self.fails
        numbers = range(offset, min(offset + min(want, self.most), self.total))
        title = f"call {len(self.calls)}"
        return Listing(tasks=tuple(self._task(number, title) for number in numbers), total=self.total)

    async def get_task(
        self, app: UpstreamApp, task_id: int, *, before_send: Callable[[], Awaitable[None]], trace: CallTrace
    ) -> Task | None:
        """See `TaskUpstream.get_task`."""
        raise NotImplementedError(f"{app.name}, {task_id}, {before_send}, {trace}")

    def stopped(self, app: UpstreamApp, kind: CallKind) -> CallsStopped | None:
        """Return why calls are stopped, if they are."""
        del app, kind
        return self.stops

    def worst(self, window_s: float) -> int:
        """Return the largest number of calls that were sent within any window."""
        return most_in_window((call.sent_at_s for call in self.calls), window_s)

    def _task(self, number: int, title: str) -> Task:
        return bare_task(number, title=title, status="dispatched" if number < self.dispatched_below else None)


class SmallWorld:
    """Replicas whose first quiet window is over, on one Redis with one upstream."""

    def __init__(self, *, replicas: int = 1, rules: Rules = RULES, memory_bytes: int = 1_000_000) -> None:
        self.loop = asyncio.get_running_loop()
        self.redis = MemoryRedis(self.loop.time)
        apps = (APP, OTHER_APP)
        self.servers = model_servers(apps, rules, self.redis, chance=random.Random)
        self.upstream = ScriptedUpstream()
        self.replicas = [
            Replica(
                f"r{number}",
                apps=apps,
                servers=self.servers,
                redis=self.redis,
                upstream=self.upstream,  # type: ignore[arg-type]
                rules=rules,
                lifetimes=LIFETIMES,
                chance=random.Random(number),
                delay_s=(0.0005, 0.0005),
                memory_bytes=memory_bytes,
                wall_s=lambda: WALL_S + self.loop.time(),
            )
            for number in range(replicas)
        ]

    async def start(self) -> None:
        """Start the replicas, and wait until all slots are free."""
        for replica in self.replicas:
            replica.start()
        await asyncio.sleep(5)

    async def page(
        self,
        keyword: str = "",
        offset: int = 0,
        limit: int = 10,
        *,
        replica: int = 0,
        caller: str = "c",
        patience_s: float = 3.0,
        directives: CacheDirectives | None = None,
        waiting_max: int = 50,
        is_absolute: bool = False,
        only: TaskFilter | None = None,
    ) -> Page:
        """Return a page of the list with this keyword, as this caller gets it from this replica."""
        request = PageRequest(
            caller=Caller(name=caller, apps=frozenset((APP,)), weight=1.0, waiting_max=waiting_max, wait_max_s=60),
            query=query_of(keyword, is_absolute=is_absolute),
            slice=Slice(offset=offset, limit=limit),
            patience_s=patience_s,
            directives=directives or CacheDirectives(),
            only=only or TaskFilter(),
        )
        page: Page = await self.replicas[replica].run(self.replicas[replica].gateway.page(request))
        return page

    async def chunk(self, keyword: str = "", offset: int = 0, *, is_absolute: bool = False) -> Chunk:
        """Return a part of the list with this keyword, as a stream gets it from the first replica."""
        request = PageRequest(
            caller=Caller(name="c", apps=frozenset((APP,)), weight=1.0, waiting_max=50, wait_max_s=60),
            query=query_of(keyword, is_absolute=is_absolute),
            slice=Slice(offset=offset, limit=10),
            patience_s=3.0,
            directives=CacheDirectives(),
        )
        chunk: Chunk = await self.replicas[0].run(self.replicas[0].gateway.chunk(request))
        return chunk

    async def pause(self, pause_ms: int) -> None:
        """Let another replica report that the upstream has asked for a pause."""
        network = Network(random.Random(0), delay_s=(0.0, 0.0))
        other = ModelScheduler(self.servers[APP], network, rules=RULES, replica="other", on_call=lambda _: None)
        await other.done(0, block="", pause_ms=pause_ms, pause_reason="throttled")

    def redis_calls(self, name: str, *, replica: int = 0) -> int:
        """Return how many commands or script calls of this name the replica has sent."""
        return len(self.replicas[replica].work.get(name, ()))


def query_of(keyword: str, *, is_absolute: bool = False) -> Query:
    """Return a query of the app: the hour before now, or one that ended long ago."""
    if is_absolute:
        return Query(app=APP, since=At(epoch_s=0), until=At(epoch_s=1), keyword=keyword or None)
    return Query(app=APP, since=FromNow(offset_s=-3600), until=FromNow(offset_s=0), keyword=keyword or None)


def play(
    scene: Callable[[SmallWorld], Awaitable[None]],
    *,
    replicas: int = 1,
    rules: Rules = RULES,
    memory_bytes: int = 1_000_000,
) -> None:
    """Run a scene in a world of its own, and shut its replicas down in order. No task may end in an error unseen."""
    unseen: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        world = SmallWorld(replicas=replicas, rules=rules, memory_bytes=memory_bytes)
        await world.start()
        await scene(world)
        world.upstream.goes_on.set()
        for replica in world.replicas:
            await asyncio.wait_for(replica.aclose(), 60)

    run_in_virtual_time(run)
    assert unseen == []


def tasks(page: Page) -> list[int]:
    """Return the ids of a page's tasks."""
    return [task["id"] for task in json.loads(b"[" + page.body + b"]")]


def titles(page: Page) -> set[str]:
    """Return the calls that a page's tasks came from."""
    return {task["title"] for task in json.loads(b"[" + page.body + b"]")}
