"""Single tasks by whole gateways: a real Valkey, a sandbox that limits each kind of call by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from service.sandbox.control import AppStats
from service.sandbox.faults import HttpStatus, SandboxCall
from service.sandbox.serving import Sandbox, sandbox_upstream
from service.sandbox.tasks import SandboxTask
from service.sandbox.upstream import SandboxOptions
from service.settings import BudgetSettings, CacheSettings
from tests.control_client import ControlClient
from tests.integration.gateway.started import started
from tests.servers import Server, until

WINDOW_S = 0.3
PENDING, DISPATCHED, UNKNOWN = 7, 8, 9
SOON = {"since": "-P1D", "until": "P2D", "limit": 100}


class Replicas:
    """Gateways that share one Valkey and one sandbox, called over ASGI."""

    def __init__(self, server: Server, sandbox: Sandbox, stack: AsyncExitStack) -> None:
        self.server = server
        self.sandbox = sandbox
        self.control = ControlClient(sandbox.base_url)
        self.clients: list[httpx.AsyncClient] = []
        self._stack = stack

    async def start(self, **cache: float) -> None:
        """Start another replica."""
        client = await started(
            self._stack,
            self.server,
            self.sandbox,
            budget=BudgetSettings(
                window_s=WINDOW_S, get_window_s=WINDOW_S, transit_s=1.0, attempts=1, wait_default_s=20.0
            ),
            cache=CacheSettings(**({"ahead": False, "stale_while_revalidate_s": 0.0} | cache)),
            operator=True,
        )
        self.clients.append(client)

    async def task(self, task_id: int, *, by: int = 0, **headers: str) -> httpx.Response:
        """One task of a replica."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.clients[by].get(f"/tasks/{task_id}", headers=fields)

    async def page(self, *, by: int = 0, **parameters: Any) -> httpx.Response:
        """A page of a replica."""
        return await self.clients[by].get("/tasks", params=SOON | parameters)

    async def calls(self, call: SandboxCall = "get") -> AppStats:
        """The upstream calls of one kind so far."""
        return (await self.control.stats()).of(self.sandbox.app.sdkappid, call)

    async def stored(self) -> None:
        """Wait until Redis has a list that was fetched: it is served before."""
        await until(lambda: self.server.run("EXISTS", "taskgate:{shop}:b:i") == 1)

    async def add(self, task_id: int, **fields: Any) -> None:
        """Add or replace a task at the upstream, scheduled for tomorrow."""
        scheduled_s = int(self.sandbox.upstream.clock.now_s()) + 86_400
        values = {"title": "new", "description": "", "created_s": scheduled_s - 90_000, "scheduled_s": scheduled_s}
        await self.control.add_tasks(self.sandbox.app.sdkappid, [SandboxTask(id=task_id, **(values | fields))])


@pytest.fixture
async def replicas(own_valkey: Server) -> AsyncIterator[Replicas]:
    """Two replicas with default lifetimes."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(sandbox_upstream(SandboxOptions(window_s=WINDOW_S, tasks=300)))
        both = Replicas(own_valkey, sandbox, stack)
        now_s = int(sandbox.upstream.clock.now_s())
        await both.add(PENDING)
        await both.add(DISPATCHED, scheduled_s=now_s - 3600, dispatch_s=1.0)
        await both.start()
        await both.start()
        yield both


async def test_one_call_serves_all_requests_for_a_task(replicas: Replicas) -> None:
    """Forty requests at two replicas cost one `get_sched_task` and no `list_sched_task`; later ones cost nothing."""
    answers = await asyncio.gather(*(replicas.task(PENDING, by=number % 2) for number in range(40)))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["id"] for answer in answers} == {PENDING}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    later = await replicas.task(PENDING, by=1)
    assert later.headers["cache-status"].startswith("taskgate; hit; ttl=")
    assert "ratelimit" not in later.headers
    assert ((await replicas.calls("get")).calls, (await replicas.calls("list")).calls) == (1, 0)


async def test_a_task_has_the_same_form_as_in_a_list(replicas: Replicas) -> None:
    """A task has the same body, whether it was fetched by its id or with a block of a list."""
    alone = await replicas.task(PENDING)
    listed = {task["id"]: task for task in (await replicas.page()).json()["tasks"]}
    assert alone.json() == listed[PENDING]
    assert alone.json()["status"] == "pending"


async def test_a_dispatched_task_is_settled(replicas: Replicas) -> None:
    """A dispatched task stays fresh for `settled_s` instead of `fresh_s`."""
    assert (await replicas.task(PENDING)).headers["cache-control"] == "private, max-age=15"
    assert (await replicas.task(DISPATCHED)).headers["cache-control"] == "private, max-age=600"


async def test_a_missing_task_is_remembered(replicas: Replicas) -> None:
    """That a task does not exist is remembered on both replicas, until a caller requests a new answer."""
    for by in (0, 1, 0, 1):
        answer = await replicas.task(UNKNOWN, by=by)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-task")
    assert (await replicas.calls()).calls == 1
    await replicas.add(UNKNOWN)
    assert (await replicas.task(UNKNOWN, cache_control="no-cache")).status_code == 200
    assert (await replicas.task(UNKNOWN, by=1)).status_code == 200
    assert (await replicas.calls()).calls == 2


async def test_each_kind_of_call_has_its_own_budget(replicas: Replicas) -> None:
    """Thirty tasks and thirty lists at once make at most five calls of each kind in any window."""
    tasks = (replicas.task(1_000_000_001 + number, by=number % 2) for number in range(30))
    lists = (replicas.page(by=number % 2, offset=0, q=f"{number}") for number in range(30))
    answers = await asyncio.gather(*tasks, *lists)
    assert {answer.status_code for answer in answers} == {200}
    for kind in ("get", "list"):
        seen = await replicas.calls(kind)
        assert (seen.calls, seen.refused) == (30, 0)
        assert seen.worst_window == 5
    policies = {answer.headers["ratelimit-policy"] for answer in answers if "ratelimit-policy" in answer.headers}
    assert policies == {'"shop";q=5;w=1', '"shop/get";q=5;w=1'}


async def test_both_budgets_are_shown(replicas: Replicas) -> None:
    """`GET /budget` and `GET /usage` show both, each with its own calls and requests."""
    await replicas.task(PENDING)
    await replicas.task(PENDING)
    await replicas.page()
    for call, turns, requests, hits in (("get", 1, 2, 1), ("list", 1, 1, 0)):
        budget = (await replicas.clients[0].get("/budget", params={"call": call})).json()
        assert (budget["call"], budget["slots"]["total"], budget["calls"]["last_minute"]["ok"]) == (call, 5, 1)
        assert budget["callers"][0]["last_minute"]["turns"] == turns
        used: dict[str, Any] = {}
        async with asyncio.timeout(20):  # requests are counted in batches
            while used.get("total", {}).get("requests") != requests:
                used = (await replicas.clients[0].get("/usage", params={"call": call})).json()
        assert (used["call"], used["total"]["hits"], used["total"]["fetches"]) == (call, hits, turns)
    assert (await replicas.clients[0].get("/budget")).json()["call"] == "list"
    wrong = await replicas.clients[0].get("/budget", params={"call": "delete"})
    assert wrong.json()["errors"] == [{"parameter": "call", "detail": "must be one of list, get"}]


@pytest.mark.parametrize("of_list", [False, True])
async def test_stored_tasks_are_served_stale_while_calls_fail(replicas: Replicas, of_list: bool) -> None:
    """Tasks, stored alone or in a list, are served stale, and marked as such; that one does not exist is no longer
    served."""
    await replicas.start(fresh_s=0.2, settled_s=0.2)
    stored = await (replicas.page(by=2) if of_list else replicas.task(PENDING, by=2))
    assert stored.status_code == 200
    assert (await replicas.task(UNKNOWN, by=2)).status_code == 404
    await replicas.control.add_fault(HttpStatus(status=500, call="get"))
    await asyncio.sleep(0.25)
    stale = await replicas.task(PENDING, by=2)
    assert (stale.status_code, stale.json()["id"]) == (200, PENDING)
    assert "detail=error" in stale.headers["cache-status"]
    assert (await replicas.task(UNKNOWN, by=2)).status_code == 502
    assert (await replicas.page(by=2)).status_code == 200


async def test_a_purge_drops_single_tasks_too(replicas: Replicas) -> None:
    """A purge drops tasks, existing and missing ones, on both replicas."""
    for by in (0, 1):
        await replicas.task(PENDING, by=by)
        await replicas.task(UNKNOWN, by=by)
    await replicas.add(PENDING, title="edited")
    await replicas.add(UNKNOWN)
    assert (await replicas.task(PENDING)).json()["title"] == "new"
    assert (await replicas.clients[0].delete("/cache", params={"app": "shop"})).json()["dropped"] >= 2
    for by in (1, 0):
        assert (await replicas.task(PENDING, by=by)).json()["title"] == "edited"
        assert (await replicas.task(UNKNOWN, by=by)).status_code == 200


async def test_a_request_for_stored_tasks_makes_no_call(replicas: Replicas) -> None:
    """`only-if-cached` and `wait=0` make no call."""
    assert (await replicas.task(PENDING, cache_control="only-if-cached")).status_code == 504
    assert (await replicas.task(PENDING, prefer="wait=0")).json()["type"] == "/problems/nothing-stored"
    assert (await replicas.calls()).calls == 0
    await replicas.task(PENDING)
    assert (await replicas.task(PENDING, by=1, cache_control="only-if-cached")).status_code == 200


async def test_without_redis_memory_serves(replicas: Replicas) -> None:
    """Without Redis, tasks in memory are served, and no call is made for others."""
    await replicas.task(PENDING)
    await replicas.task(UNKNOWN)
    replicas.server.kill()
    assert (await replicas.task(PENDING)).status_code == 200
    assert (await replicas.task(UNKNOWN)).status_code == 404
    assert (await replicas.task(DISPATCHED)).json()["type"] == "/problems/store-unavailable"


async def test_a_task_of_a_stored_list_costs_no_call(replicas: Replicas) -> None:
    """A task of a stored list is served on both replicas without a call, with the age of the list, and settled if
    dispatched."""
    listed = await replicas.page()
    assert listed.status_code == 200
    ids = {task["id"]: task for task in listed.json()["tasks"]}
    await replicas.stored()
    for by in (0, 1):
        pending, dispatched = await replicas.task(PENDING, by=by), await replicas.task(DISPATCHED, by=by)
        assert (pending.json(), dispatched.json()) == (ids[PENDING], ids[DISPATCHED])
        assert pending.headers["cache-status"].startswith("taskgate; hit; ttl=")
        assert pending.headers["cache-control"] == "private, max-age=15"
        assert dispatched.headers["cache-control"] == "private, max-age=600"
    assert ((await replicas.calls("get")).calls, (await replicas.calls("list")).calls) == (0, 1)
    assert (await replicas.task(PENDING, by=1, cache_control="no-cache")).status_code == 200
    assert (await replicas.calls("get")).calls == 1


async def test_a_list_overrides_a_missing_task(replicas: Replicas) -> None:
    """A task that appears in a list is found by its id on every replica, even if it was missing before."""
    for by in (0, 1):
        assert (await replicas.task(UNKNOWN, by=by)).status_code == 404
    await replicas.add(UNKNOWN)
    assert UNKNOWN in {task["id"] for task in (await replicas.page()).json()["tasks"]}
    await replicas.stored()
    for by in (1, 0):
        assert (await replicas.task(UNKNOWN, by=by)).status_code == 200
    assert (await replicas.calls("get")).calls == 1
