"""`GET /budget` on two whole gateways in this process, with a real Valkey and the sandbox upstream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx

from service.app import create_app
from service.sandbox.faults import ErrorCode, HttpStatus, Latency
from service.sandbox.serving import Sandbox, sandbox_upstream
from service.sandbox.upstream import SandboxOptions
from service.settings import AppSettings, BudgetSettings, CallerSettings, RedisSettings, Settings
from tests.control_client import control
from tests.lifespan import lifespan
from tests.servers import Server, until
from tests.settings import hashed

WINDOW_S = 0.4


def settings(sandbox: Sandbox, server: Server, budget: BudgetSettings) -> Settings:
    """Two callers and an operator, whose keys are their names."""
    app = sandbox.app
    entry = AppSettings(sdkappid=app.sdkappid, admin=app.admin, base_url=sandbox.base_url, secret_env="SECRET")
    callers = {
        name: CallerSettings(keys=(hashed(name),), apps=("shop",), operator=name == "boss")
        for name in ("reports", "bulk", "boss")
    }
    return Settings(
        apps={"shop": entry}, callers=callers, redis=RedisSettings(url=server.url, timeout_s=1.0), budget=budget
    )


class Gateways:
    """Two gateways, each with its own client."""

    def __init__(self, sandbox: Sandbox, clients: list[httpx.AsyncClient]) -> None:
        self.sandbox = sandbox
        self.clients = clients

    async def get(self, replica: int, path: str, caller: str) -> httpx.Response:
        """GET as one of the callers."""
        headers = {"Authorization": f"Bearer {caller}", "Prefer": "wait=20"}
        return await self.clients[replica].get(path, headers=headers)

    async def budget(self, replica: int, caller: str) -> Any:
        """The budget as a caller sees it."""
        answer = await self.get(replica, "/budget", caller)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def budget_when(self, holds: Callable[[Any], bool], *, replica: int = 0, caller: str = "reports") -> Any:
        """The first budget for which a condition holds."""
        async with asyncio.timeout(20):
            while not holds(body := await self.budget(replica, caller)):
                await asyncio.sleep(0.05)
        return body


@asynccontextmanager
async def gateways(server: Server, **budget: Any) -> AsyncIterator[Gateways]:
    """Two gateways whose first quiet window is over."""
    rules = BudgetSettings(calls=5, window_s=WINDOW_S, transit_s=0.1, redis_grace_s=0.6, **budget)
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(sandbox_upstream(SandboxOptions(window_s=WINDOW_S)))
        clients = []
        for _ in range(2):
            service = create_app(settings(sandbox, server, rules), environ={"SECRET": sandbox.app.key})
            await stack.enter_async_context(lifespan(service.asgi))
            transport = httpx.ASGITransport(app=service.asgi)
            client = httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30)
            clients.append(await stack.enter_async_context(client))
        both = Gateways(sandbox, clients)
        for replica in range(2):
            await both.budget_when(lambda body: body["slots"]["free"] == 5, replica=replica)
        yield both


def _named(body: Any, caller: str) -> Any:
    return next(share for share in body["callers"] if share["caller"] == caller)


async def test_usage_of_one_replica_is_seen_on_both(own_valkey: Server) -> None:
    """Turns are counted for the caller that paid, saved fetches for those that joined; the sandbox counts the same."""
    async with gateways(own_valkey) as both:
        for offset in (0, 100, 200):
            assert (await both.get(0, f"/tasks?offset={offset}", "reports")).status_code == 200
        await control(both.sandbox).add_fault(Latency(back_ms=500))  # so that all arrive before the answer
        pages = await asyncio.gather(
            *(both.get(replica, "/tasks?offset=300", caller) for replica in (0, 1) for caller in ("reports", "bulk"))
        )
        assert {page.status_code for page in pages} == {200}
        here = await both.budget(0, "boss")
        assert _named(here, "reports")["last_minute"]["turns"] >= 3

        def is_all_there(body: Any) -> bool:
            shares = [*body["callers"], body["others"]]
            return sum(share["last_hour"]["turns"] + share["last_hour"]["joined"] for share in shares) == 7

        there = await both.budget_when(is_all_there, replica=1, caller="boss")
        assert [share["caller"] for share in there["callers"]] == ["boss", "bulk", "reports"]
        assert sum(share["last_minute"]["turns"] for share in there["callers"]) == 4
        assert sum(share["last_minute"]["joined"] for share in there["callers"]) == 3
        assert (await control(both.sandbox).stats()).calls == 4
        assert 1 <= there["worst_window"]["last_hour"] <= 4
        await both.budget_when(lambda body: body["worst_window"] == there["worst_window"], caller="boss")
        plain = await both.budget_when(is_all_there, replica=1)
        assert [share["caller"] for share in plain["callers"]] == ["reports"]
        assert plain["callers"][0]["last_hour"] == _named(there, "reports")["last_hour"]
        assert plain["others"]["last_hour"] == _named(there, "bulk")["last_hour"]


async def test_failing_calls_are_shown_with_the_last_success(own_valkey: Server) -> None:
    """Both replicas name the state: serving, then failing with the results of the calls; then stopped."""
    async with gateways(own_valkey, attempts=1) as both:
        assert (await both.get(0, "/tasks", "reports")).status_code == 200
        good = await both.budget_when(lambda body: body["calls"]["last_minute"]["ok"] == 1, replica=1)
        assert (good["state"], good["calls"]["last_minute"]["failed"]) == ("serving", {})
        await both.budget_when(lambda body: body["last_success_at"] is not None, replica=1)
        await control(both.sandbox).add_fault(HttpStatus(status=500))
        for word in ("x", "y"):
            assert (await both.get(0, f"/tasks?q={word}", "reports")).status_code == 502
        results = {"ok": 1, "failed": {"http_status": 2}}
        bad = await both.budget_when(lambda body: body["calls"]["last_hour"] == results, replica=1)
        assert (bad["state"], bad["calls"]["last_minute"]) == ("failing", results)
        assert bad["state_detail"] == "2 of 3 upstream calls failed in the last minute."
        assert bad["last_success_at"] == good["last_success_at"]
        usage = (await both.get(1, "/usage", "reports")).json()
        assert (usage["total"]["failed"], usage["total"]["fetches"]) == (2, 3)
        await control(both.sandbox).clear_faults()
        await control(both.sandbox).add_fault(ErrorCode(code=70003, text="bad signature"))
        assert (await both.get(0, "/tasks?q=z", "reports")).status_code == 502
        stopped = await both.budget(0, "reports")
        assert stopped["state"] == "stopped"
        assert stopped["state_detail"].startswith("Calls are stopped: ")


async def test_a_pause_is_shown_with_its_reason_on_both_replicas(own_valkey: Server) -> None:
    """The upstream has answered that there were too many calls, among others that went well."""
    async with gateways(own_valkey, attempts=1, pause_s=20.0) as both:
        for offset in (0, 100, 200):
            assert (await both.get(0, f"/tasks?offset={offset}", "reports")).status_code == 200
        await control(both.sandbox).add_fault(ErrorCode(code=60007))
        assert (await both.get(0, "/tasks?q=x", "reports")).status_code in (502, 503)
        for replica in range(2):
            body = await both.budget_when(lambda body: body["state"] == "paused", replica=replica)
            assert body["state_detail"].endswith("(throttled).")
            assert body["pause"]["reason"] == "throttled"


async def test_waiting_requests_are_seen_on_both_replicas(own_valkey: Server) -> None:
    """Sixty blocks take five seconds: the other replica reports how many wait and how long, and no slot is free."""
    async with gateways(own_valkey) as both:
        asked = [asyncio.create_task(both.get(0, f"/tasks?since=-P{day}D", "bulk")) for day in range(1, 61)]
        body = await both.budget_when(lambda body: body["others"]["waiting"]["oldest_seconds"] > 0.2, replica=1)
        assert 5 < body["others"]["waiting"]["count"] < 60
        assert body["slots"]["free"] < 5
        assert body["callers"][0]["waiting"] == {"count": 0, "oldest_seconds": 0.0}
        operators = await both.budget(1, "boss")
        assert _named(operators, "bulk")["waiting"]["count"] > 0
        assert operators["others"]["waiting"]["count"] == 0
        assert {(await task).status_code for task in asked} == {200}
        await both.budget_when(lambda body: body["others"]["waiting"]["count"] == 0, replica=1)


async def test_without_redis_known_usage_is_shown(own_valkey: Server) -> None:
    """Without Redis the response is no error: past usage is still known, the free slots are not."""
    async with gateways(own_valkey) as both:
        await both.get(0, "/tasks", "reports")
        used = await both.budget_when(lambda body: body["callers"][0]["last_hour"]["turns"] == 1)
        own_valkey.kill()
        body = await both.budget_when(lambda body: body["redis"] == "away")
        assert (body["slots"]["free"], body["pause"]) == (None, None)
        assert body["slots"]["total"] == 5
        assert body["callers"] == used["callers"]
        assert (await both.get(0, "/tasks?q=x", "reports")).status_code == 503
        own_valkey.start()
        await both.budget_when(lambda body: body["redis"] == "ok" and body["slots"]["free"] == 5)


async def test_sharing_without_redis_shows_the_replicas_share(own_valkey: Server) -> None:
    """Each replica serves from its share of two calls of five, shows that, and counts them."""
    async with gateways(own_valkey, on_redis_down="share", max_replicas=2) as both:
        own_valkey.kill()
        for replica in range(2):
            body = await both.budget_when(lambda body: body["redis"] == "away", replica=replica)
            body = await both.budget_when(lambda body: body["slots"]["free"] == 2, replica=replica)
            assert body["slots"]["total"] == 2
            page = await both.get(replica, f"/tasks?q=w{replica}", "reports")
            assert page.status_code == 200
            assert page.headers["ratelimit-policy"] == '"shop";q=2;w=1'
            ready = (await both.get(replica, "/readyz", "reports")).json()
            assert (ready["ready"], ready["redis"]) == (True, "away")
            assert (await both.budget(replica, "reports"))["callers"][0]["last_minute"]["turns"] == 1
        own_valkey.start()
        for replica in range(2):
            await both.budget_when(lambda body: body["redis"] == "ok" and body["slots"]["free"] == 5, replica=replica)
        await both.budget_when(lambda body: body["callers"][0]["last_hour"]["turns"] == 2)
        assert (await control(both.sandbox).stats()).refused == 0


async def test_usage_of_all_replicas_adds_up(own_valkey: Server) -> None:
    """Each request on any replica is in the usage that every replica reports, by its outcome; polling is not."""
    async with gateways(own_valkey) as both:
        for replica, caller in ((0, "reports"), (0, "reports"), (0, "reports"), (1, "reports"), (1, "bulk")):
            assert (await both.get(replica, "/tasks", caller)).status_code == 200
            await until(lambda: bool(own_valkey.run("KEYS", "*:b:*")))
        refused = await both.clients[0].get("/tasks?q=x", headers={"Authorization": "Bearer bulk", "Prefer": "wait=0"})
        assert refused.status_code == 504
        assert "retry-after" not in refused.headers

        async def usage_when(requests: int, *, replica: int, caller: str) -> Any:
            async with asyncio.timeout(20):
                while (body := (await both.get(replica, "/usage", caller)).json())["total"]["requests"] != requests:
                    await asyncio.sleep(0.05)
            return body

        for replica in range(2):
            body = await usage_when(6, replica=replica, caller="boss")
            used = {each["caller"]: each["used"] for each in body["callers"]}
            assert {name: row["requests"] for name, row in used.items()} == {"bulk": 2, "reports": 4}
            assert (used["reports"]["fetches"], used["reports"]["hits"], used["reports"]["waits"]) == (1, 3, 1)
            assert (used["bulk"]["hits"], used["bulk"]["refusals"], used["bulk"]["fetches"]) == (1, 1, 0)
            assert body["total"]["saved"] == 4
            assert sum(part["used"]["requests"] for part in body["minutes"]) == 6
            assert body["hours"] == []
            week = (await both.get(replica, "/usage?since=-P7D", "boss")).json()
            assert (week["total"], week["callers"]) == (body["total"], body["callers"])
            assert [part["used"]["requests"] for part in week["hours"][:-2]] == [0] * (len(week["hours"]) - 2)
            assert len(week["hours"]) == 168
            own = await usage_when(2, replica=replica, caller="bulk")
            assert [each["caller"] for each in own["callers"]] == ["bulk"]


async def test_the_last_counts_are_not_lost(own_valkey: Server) -> None:
    """A request that ended right before its replica did is in the usage that another reports."""
    async with sandbox_upstream(SandboxOptions(window_s=WINDOW_S)) as sandbox:
        rules = BudgetSettings(calls=5, window_s=WINDOW_S, transit_s=0.1)
        bodies = []
        for path in ("/tasks", "/usage"):
            service = create_app(settings(sandbox, own_valkey, rules), environ={"SECRET": sandbox.app.key})
            transport = httpx.ASGITransport(app=service.asgi)
            async with (
                lifespan(service.asgi),
                httpx.AsyncClient(transport=transport, base_url="http://gateway") as client,
            ):
                answer = await client.get(path, headers={"Authorization": "Bearer bulk", "Prefer": "wait=9"})
                assert answer.status_code == 200
                bodies.append(answer.json())
        assert bodies[1]["total"]["requests"] == 1
