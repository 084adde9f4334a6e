"""One replica of a simulation: the gateway's own parts, assembled as `service.app` does, without the web."""

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from service.budget.line.line import Line
from service.budget.scheduler.fallback import FallbackScheduler, notice_s
from service.budget.scheduler.rules import Rules
from service.cache.block_cache import BlockCache
from service.cache.memory_blocks import MemoryBlocks
from service.cache.purge import Purge
from service.cache.redis_blocks import RedisBlocks
from service.cache.sequential_reads import SequentialReads
from service.gateway.fetch import CallsUpstream, Fetching
from service.gateway.gateway import Gateway
from service.gateway.list_calls import ListCalls
from service.gateway.served import ServedApp, ServedCall
from service.gateway.task_calls import TaskCalls
from service.model.callers import AppInfo
from service.model.calls import CallKind, budget_name
from service.model.freshness import Lifetimes
from service.upstream.apps import UpstreamApp
from tests.simulation.memory_redis import MemoryRedis, MemoryStore, Network
from tests.simulation.model_scheduler import ModelScheduler, ModelServer
from tests.simulation.sim_upstream import SimUpstream
from tests.simulation.virtual_time import TaskOwner, owned_by

BLOCK_SIZE = 10
ATTEMPTS = 3
PAUSE_S = 1.0
PAUSE_MAX_S = 60.0
GRACE_S = 2.0


class _UsageCounts:
    """The part of a usage store that a gateway needs to serve pages."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def count(self, caller: str, what: str) -> None:
        self.counts[caller, what] += 1


class Replica:
    """The parts of one process, its network, its wall clock and its work.

    `servers` are the states of the budgets, by their names.
    `work` are the times of script calls and commands, by name; `events` those of events that justify them.
    """

    def __init__(
        self,
        name: str,
        *,
        apps: Iterable[str],
        servers: Mapping[str, ModelServer],
        redis: MemoryRedis,
        upstream: SimUpstream,
        rules: Rules,
        lifetimes: Lifetimes,
        chance: random.Random,
        delay_s: tuple[float, float],
        memory_bytes: int,
        wall_s: Callable[[], float],
        weights_by: float = 1.0,
        max_replicas: int = 0,
    ) -> None:
        """With `max_replicas`, replicas share the calls while Redis is away; callers' weights count `weights_by`."""
        self.name = name
        self.owner = TaskOwner()
        self.network = Network(chance, delay_s=delay_s)
        self.wall_off_s = 0.0
        self.work: dict[str, deque[float]] = {}
        self.events: deque[float] = deque(maxlen=5_000)
        self.connected_since_s = 0.0
        self.weights_by = weights_by
        self.store = MemoryStore(redis, self.network, self._note)
        blocks = RedisBlocks(self.store, prefix="t", block_size=BLOCK_SIZE, chance=chance.randbytes)
        memory = MemoryBlocks(max_bytes=memory_bytes, clock=asyncio.get_running_loop().time)
        self.cache = BlockCache(blocks, memory, lifetimes=lifetimes)
        self.apps: dict[str, ServedApp] = {}

        def clock() -> float:
            return wall_s() + self.wall_off_s

        def served(app: UpstreamApp, kind: CallKind, calls: CallsUpstream) -> ServedCall:
            server = servers[budget_name(app.name, kind)]
            shared = ModelScheduler(server, self.network, rules=rules, replica=name, on_call=self._note)
            sharing = _sharing_of(shared, app=app.name, rules=rules, max_replicas=max_replicas)
            fetching = Fetching(
                app=app,
                kind=kind,
                calls=calls,
                stops=upstream,
                cache=self.cache,
                attempts=ATTEMPTS,
                pause_s=PAUSE_S,
                pause_max_s=PAUSE_MAX_S,
                clock=clock,
            )
            return ServedCall(
                app=app.name,
                kind=kind,
                channel=server.channel,
                fetching=fetching,
                line=Line(sharing or shared, app=app.name, rules=rules, redis_grace_s=GRACE_S, used=self._used),
                usage_store=_UsageCounts(),  # type: ignore[arg-type]
                sharing=sharing,
                calls=rules.calls,
                window_s=rules.window_ms / 1000,
            )

        self.list_calls: dict[str, ListCalls] = {}
        for app_name in apps:
            app = UpstreamApp(name=app_name, sdkappid=1, admin="a", hosts=())
            list_calls = self.list_calls[app_name] = ListCalls(
                app, upstream, self.cache, block_size=BLOCK_SIZE, align_s=60, clock=clock
            )
            self.apps[app_name] = ServedApp(
                info=AppInfo(name=app_name, region=None),
                list=served(app, CallKind.LIST, list_calls),
                get=served(app, CallKind.GET, TaskCalls(app, upstream, clock=clock)),
            )
        self.purge = Purge(self.store, blocks, prefix="t", apps=self.apps)
        self.purge.add(self.cache.forget)
        self.gateway = Gateway(
            self.apps,
            block_size=BLOCK_SIZE,
            lifetimes=lifetimes,
            clock=clock,
            purge=self.purge,
            sequential_reads=SequentialReads(block_size=BLOCK_SIZE),
        )

    @property
    def calls(self) -> list[ServedCall]:
        """All kinds of calls of all apps."""
        return [call for app in self.apps.values() for call in app.calls]

    def start(self) -> None:
        """Start serving."""
        with owned_by(self.owner):
            self.purge.start()
            for call in self.calls:
                if call.sharing is not None:
                    call.sharing.start()
                self.store.listen(call.channel, _heard(call.line, self.event), on_gap=call.line.on_message_gap)
                call.line.start()
            self.gateway.start()
        self.connected_since_s = asyncio.get_running_loop().time()

    def run(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something in this process."""
        self.event()
        with owned_by(self.owner):
            task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self.event())
        return task

    def event(self) -> None:
        """Record an event that justifies a look or a tick."""
        self.events.append(asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        """Shut down in order."""
        self.gateway.begin_drain()
        self.gateway.reject_waiting()
        for call in self.calls:
            await call.line.aclose()
            if call.sharing is not None:
                await call.sharing.aclose()
        await self.purge.aclose()
        await self.gateway.aclose()
        await self.store.aclose()

    def _note(self, name: str) -> None:
        self.work.setdefault(name, deque(maxlen=5_000)).append(asyncio.get_running_loop().time())

    def _used(self, caller: str) -> None:
        del caller
        self.event()


def _sharing_of(shared: ModelScheduler, *, app: str, rules: Rules, max_replicas: int) -> FallbackScheduler | None:
    """Return the scheduler for outages of Redis, if replicas share the calls then."""
    if max_replicas == 0:
        return None
    return FallbackScheduler(
        shared,
        app=app,
        rules=rules,
        max_replicas=max_replicas,
        grace_s=GRACE_S / 2,
        notice_s=notice_s(MemoryStore.TIMEOUT_S),
        clock_s=asyncio.get_running_loop().time,
    )


def _heard(line: Line, note: Callable[[], None]) -> Callable[[bytes], None]:
    def heard(message: bytes) -> None:
        note()
        line.heard(message.decode())

    return heard
