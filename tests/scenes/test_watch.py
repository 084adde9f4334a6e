"""Watched lists, through whole processes: every change once, across the death of a replica, at the cost of one list."""

import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from msgspec.structs import replace

from service.sandbox.faults import HttpStatus
from service.sandbox.tasks import SandboxTask
from tests.control_client import NO_TLS
from tests.event_reader import EVENT_STREAM, Mirror, events
from tests.scenes.fleet import APP, Fleet, fleet, key_of, path
from tests.servers import Server

pytestmark = pytest.mark.scene

WATCHERS = 100
TASKS = 230
FRESH = {"cache": {"fresh_s": 1.0}}
DAY_S = 86_400


class Client:
    """Watches, and reconnects to any replica; its list is reconstructed from its events alone."""

    def __init__(self, gateways: Fleet, number: int) -> None:
        self.mirror = Mirror()
        self.connections = 0
        self._gateways = gateways
        self._number = number

    async def run(self) -> None:
        """Watch until cancelled."""
        async with httpx.AsyncClient(timeout=httpx.Timeout(30, read=60), verify=NO_TLS) as client:
            while True:
                port = self._gateways.replicas[(self._number + self.connections) % len(self._gateways.replicas)].port
                self.connections += 1
                headers = {"Authorization": f"Bearer {key_of(f'c{self._number % 10}')}", **EVENT_STREAM}
                if self.mirror.last_id:
                    headers["Last-Event-ID"] = self.mirror.last_id
                with contextlib.suppress(httpx.TransportError):
                    url = f"http://127.0.0.1:{port}{path(since='-P90D', until='P90D')}"
                    async with client.stream("GET", url, headers=headers) as answer:
                        assert answer.status_code == 200
                        async for event in events(answer):
                            self.mirror.take(event)
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def watching(gateways: Fleet, count: int) -> AsyncIterator[list[Client]]:
    """The given number of clients, all with the whole list; a failed assertion in any of them fails the test."""
    clients = [Client(gateways, number) for number in range(count)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    try:
        async with asyncio.timeout(90):
            while not all(client.mirror.is_whole for client in clients):
                await asyncio.sleep(0.05)
        yield clients
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise ended


class Upstream:
    """The upstream's list as modified by the test."""

    def __init__(self, gateways: Fleet) -> None:
        self.tasks: dict[int, SandboxTask] = {}
        self._control = gateways.upstream
        self._random = random.Random(7)
        self._next = 1

    async def replace_all(self, count: int) -> None:
        """Start with the given number of tasks, all due in the next days."""
        await self._control.resize_tasks(APP.sdkappid, 0)
        await self.add(count)

    async def add(self, count: int = 1) -> None:
        """Add some new tasks, anywhere in the list."""
        now_s = time.time()
        made = [
            SandboxTask(
                id=self._next + number,
                type="All",
                title=f"t{self._next + number}",
                description="d",
                created_s=int(now_s) - DAY_S,
                scheduled_s=int(now_s) + self._random.randrange(DAY_S, 60 * DAY_S),
            )
            for number in range(count)
        ]
        self._next += count
        self.tasks |= {task.id: task for task in made}
        await self._control.add_tasks(APP.sdkappid, made)

    async def change(self) -> None:
        """One change: a new task, a new title, a new time, or a task less."""
        kind = self._random.choice(("add", "title", "move", "remove"))
        if kind == "add":
            await self.add()
            return
        id_ = self._random.choice(list(self.tasks))
        task = self.tasks[id_]
        if kind == "remove":
            del self.tasks[id_]
            await self._control.remove_tasks(APP.sdkappid, [id_])
            return
        moved_s = task.scheduled_s + self._random.choice((-1, 1)) * 3_600
        task = replace(task, title=f"{task.title}'") if kind == "title" else replace(task, scheduled_s=moved_s)
        self.tasks[id_] = task
        await self._control.add_tasks(APP.sdkappid, [task])

    def matches(self, mirror: Mirror) -> bool:
        """Return whether a watcher holds exactly this list."""
        return {id_: task["title"] for id_, task in mirror.tasks.items()} == {
            id_: task.title for id_, task in self.tasks.items()
        }


async def _in_step(upstream: Upstream, clients: list[Client]) -> None:
    async with asyncio.timeout(90):
        while not all(upstream.matches(client.mirror) for client in clients):
            await asyncio.sleep(0.1)


async def test_every_change_reaches_every_watcher_once(own_valkey: Server) -> None:
    """100 watchers of a list of three blocks, while one of two replicas is killed: no change is lost or doubled.

    Each event fits the list of its watcher (`Mirror`), no watcher gets a whole list again, and all together cost as
    much as one.
    """
    async with fleet(own_valkey, replicas=2, **FRESH) as gateways:
        upstream = Upstream(gateways)
        await upstream.replace_all(TASKS)
        async with watching(gateways, WATCHERS) as clients:
            await gateways.upstream.reset_stats()
            began_s = time.monotonic()
            for number in range(40):
                await upstream.change()
                await asyncio.sleep(0.1)
                if number == 20:
                    gateways.replicas[0].signal(signal.SIGKILL)
            await _in_step(upstream, clients)
            took_s = time.monotonic() - began_s
            calls = await gateways.calls()
            assert await gateways.worst_second() <= 5
            assert calls <= 3 * (took_s / 1.0 + 2)
            for client in clients:
                assert "reset" not in client.mirror.names
                assert client.mirror.names.count("task") == TASKS


async def test_watchers_are_notified_of_failures(own_valkey: Server) -> None:
    """While the upstream fails a watcher is notified; then it catches up."""
    async with fleet(own_valkey, replicas=1, **FRESH) as gateways:
        upstream = Upstream(gateways)
        await upstream.replace_all(20)
        async with watching(gateways, 3) as clients:
            await gateways.upstream.add_fault(HttpStatus(status=500))
            async with asyncio.timeout(60):
                while not all("stale" in client.mirror.names for client in clients):
                    await asyncio.sleep(0.05)
            await upstream.change()
            await gateways.upstream.clear_faults()
            await _in_step(upstream, clients)
            assert all(client.connections == 1 for client in clients)


async def test_watchers_of_a_replica_that_shuts_down_continue_elsewhere(own_valkey: Server) -> None:
    """It ends its watches at once, rather than drain them, and they continue where they were."""
    async with fleet(own_valkey, replicas=2, **FRESH) as gateways:
        upstream = Upstream(gateways)
        await upstream.replace_all(20)
        async with watching(gateways, 10) as clients:
            began_s = time.monotonic()
            gateways.replicas[0].signal(signal.SIGTERM)
            assert await gateways.replicas[0].ended() == 0
            assert time.monotonic() - began_s < 20  # a watch would be drained for 35 s
            await upstream.change()
            await _in_step(upstream, clients)
            assert all("reset" not in client.mirror.names for client in clients)
            assert sum("end" in client.mirror.names for client in clients) == 5
