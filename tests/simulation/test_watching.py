"""Watched lists in virtual time: many watchers cost as much as one, and all end with the upstream's list."""

import asyncio
import random
from collections.abc import Callable

import msgspec
import pytest

from service.budget.scheduler.rules import Rules
from service.model.callers import Caller
from service.model.freshness import Lifetimes
from service.model.queries import FromNow, Query, Sort, rfc3339
from service.model.streams import TaskFilter
from service.model.tasks import Listing, Task
from service.settings import WatchSettings
from service.watch.changes import TaskAdded, TaskChanged, TaskRemoved
from service.watch.events import ListedEvent, ResetEvent
from service.watch.feeds import Feeds
from service.watch.version_store import VersionStore
from tests.simulation import sim_replica
from tests.simulation.memory_redis import MemoryRedis
from tests.simulation.model_scheduler import model_servers
from tests.simulation.sim_replica import Replica
from tests.simulation.sim_upstream import SimUpstream
from tests.simulation.virtual_time import run_in_virtual_time
from tests.tasks import bare_task
from tests.windows import most_in_window

EPOCH_S = 1_700_000_000
FRESH_S = 15.0
BLOCK_SIZE = 100
QUERY = Query(app="a", since=FromNow(offset_s=-86_400), until=FromNow(offset_s=86_400), sort=Sort.SCHEDULED)


class MovingUpstream(SimUpstream):
    """A list that changes: tasks are added, removed, moved and edited."""

    def __init__(self, count: int) -> None:
        super().__init__(random.Random(1), round_trip_s=(0.02, 0.1), transit_s=0.5, slow_connects=0.0, total=count)
        self.tasks = {number: self._made(number) for number in range(count)}
        self._moves = random.Random(2)
        self._next = count

    def change(self) -> None:
        """One change."""
        kind = self._moves.choice(("add", "remove", "move", "edit"))
        if kind == "add":
            self.tasks[self._next] = self._made(self._next)
            self._next += 1
            return
        id_ = self._moves.choice(list(self.tasks))
        if kind == "remove":
            del self.tasks[id_]
        elif kind == "move":
            self.tasks[id_] = msgspec.structs.replace(self._made(id_), title=self.tasks[id_].title)
        else:
            self.tasks[id_] = msgspec.structs.replace(self.tasks[id_], title=f"edit {self._moves.random()}")

    def worst_second(self, app: str) -> int:
        """Return the most calls that arrived within a second."""
        return most_in_window(self.arrived_at_s[app], 1.0)

    def _listing(self, app: str, query: Query, *, offset: int, want: int) -> Listing:
        order = sorted(self.tasks.values(), key=lambda task: (task.scheduled_at or "", task.id))
        return Listing(tasks=tuple(order[offset : offset + want]), total=len(order))

    def _made(self, id_: int) -> Task:
        return bare_task(
            id_,
            type="all",
            status="pending",
            title=f"task {id_}",
            description="",
            scheduled_at=rfc3339(EPOCH_S + self._chance.randrange(3_600, 80_000)),
            dispatched=False,
        )


class Mirror:
    """One watcher's list, from its events alone; each event must fit."""

    def __init__(self) -> None:
        self.titles: dict[int, str] = {}
        self.events = 0

    async def follow(self, feeds: Feeds, current_caller: Callable[[], Caller], caller: Caller) -> None:
        """Watch until cancelled."""
        with feeds.watcher(QUERY, TaskFilter(), caller=caller, current_caller=current_caller) as watcher:
            async for batch in watcher.batches(last_id=None, idle_s=15.0):
                for each in batch:
                    self.events += 1
                    match each.event:
                        case ListedEvent(task=task) | TaskAdded(task=task):
                            assert task.labels.id not in self.titles
                            self.titles[task.labels.id] = msgspec.json.decode(task.record)["title"]
                        case TaskChanged(task=task):
                            assert task.labels.id in self.titles
                            self.titles[task.labels.id] = msgspec.json.decode(task.record)["title"]
                        case TaskRemoved(id=id_):
                            del self.titles[id_]
                        case ResetEvent():
                            raise AssertionError("nobody is slow here")


def sim_fleet(upstream: SimUpstream, *, replicas: int) -> tuple[list[Replica], list[Feeds]]:
    """Return replicas in front of the upstream, which have started, and the watched lists of each."""
    loop = asyncio.get_running_loop()
    rules = Rules(calls=5, window_ms=1000, transit_ms=500, fetch_lease_ms=4500)
    lifetimes = Lifetimes(
        fresh_s=FRESH_S, settled_s=600, refusal_s=60, stale_while_revalidate_s=60, stale_if_error_s=3600
    )
    redis = MemoryRedis(loop.time)
    servers = model_servers(("a",), rules, redis, chance=lambda _: random.Random(3))
    fleet = [
        Replica(
            f"r{number}",
            apps=("a",),
            servers=servers,
            redis=redis,
            upstream=upstream,
            rules=rules,
            lifetimes=lifetimes,
            chance=random.Random(number),
            delay_s=(0.0005, 0.002),
            memory_bytes=64 * 1024 * 1024,
            wall_s=lambda: EPOCH_S + loop.time(),
        )
        for number in range(replicas)
    ]
    for replica in fleet:
        replica.start()
    feeds = [
        Feeds(
            replica.gateway,
            VersionStore(replica.store, prefix="t", keep_s=300.0),
            settings=WatchSettings(blocks_max=50),
            block_size=BLOCK_SIZE,
            clock=lambda: EPOCH_S + loop.time(),
        )
        for replica in fleet
    ]
    return fleet, feeds


async def _watch(*, watchers: int, replicas: int, tasks: int, minutes: float) -> tuple[float, bool]:
    """Watch; return the calls in each `fresh_s`, and whether all held the upstream's list in the end."""
    upstream = MovingUpstream(tasks)
    fleet, feeds = sim_fleet(upstream, replicas=replicas)
    mirrors = [Mirror() for _ in range(watchers)]
    following = [
        asyncio.create_task(follow(mirror, feeds[number % replicas], f"c{number % 7}"))
        for number, mirror in enumerate(mirrors)
    ]
    await asyncio.sleep(30)
    began = len(upstream.served)
    for _ in range(int(minutes * 60)):
        await asyncio.sleep(1)
        upstream.change()
    calls = len(upstream.served) - began
    await asyncio.sleep(60)
    wanted = {id_: task.title for id_, task in upstream.tasks.items()}
    held = all(mirror.titles == wanted for mirror in mirrors)
    await ended(following)
    assert upstream.worst_second("a") <= 5
    for replica in fleet:
        await replica.aclose()
    return calls / (minutes * 60 / FRESH_S), held


async def ended(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel all; raise if one of them has failed."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if not isinstance(result, asyncio.CancelledError):
            raise result


def named(name: str) -> Caller:
    """Return a caller of weight 1."""
    return Caller(name=name, apps=frozenset(("a",)), weight=1.0, waiting_max=50, wait_max_s=30.0, may_force=True)


async def follow(mirror: Mirror, feeds: Feeds, name: str) -> None:
    """Watch as the caller of this name, until cancelled."""
    caller = named(name)

    def current_caller() -> Caller:
        return caller

    await mirror.follow(feeds, current_caller, caller)


@pytest.fixture(autouse=True)
def _large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_replica, "BLOCK_SIZE", BLOCK_SIZE)


@pytest.mark.parametrize(("watchers", "replicas"), [(1, 1), (60, 4)])
def test_watchers_cost_what_one_costs(watchers: int, replicas: int) -> None:
    """A list of five blocks that changes each second: no more calls than blocks in each `fresh_s`, and all hold it."""
    calls, held = run_in_virtual_time(lambda: _watch(watchers=watchers, replicas=replicas, tasks=480, minutes=2))
    assert held
    assert calls <= 5.5


@pytest.mark.long
def test_a_thousand_watchers_cost_as_many_calls_as_one() -> None:
    """Four replicas, ten minutes: 20 calls in each `fresh_s`, as for one watcher."""
    calls, held = run_in_virtual_time(lambda: _watch(watchers=1000, replicas=4, tasks=1950, minutes=10))
    assert held
    assert calls <= 20
