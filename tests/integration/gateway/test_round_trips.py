"""The cost of answers in Redis: the commands of each kind of answer, in order, as shown by a real Valkey's MONITOR."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from service.sandbox.faults import Latency
from service.sandbox.serving import Sandbox, sandbox_upstream
from service.sandbox.upstream import SandboxOptions
from service.settings import BudgetSettings, CacheSettings
from tests.control_client import control
from tests.integration.gateway.started import started
from tests.servers import Server

WINDOW_S = 0.2
FRESH_S = 5.0
MISS = ["read", "budget", "store", "budget"]
"""Look the block up; take the turn and begin; store the block with the end of its list, counted for its caller, and
where its tasks are; end the fetch."""
KINDS = {"GET": "read", "SET": "store"}


class Monitor:
    """The commands for blocks and for the budget, as the server receives them."""

    def __init__(self, server: Server, reader: asyncio.StreamReader) -> None:
        self._server = server
        self._reader = reader
        self._marks = 0

    async def seen(self) -> list[str]:
        """Return the purposes of the commands since the last call; commands that are sent together count as one."""
        self._marks += 1
        mark = f"mark {self._marks}"
        self._server.run("ECHO", mark)
        seen: list[str] = []
        while mark not in (line := (await asyncio.wait_for(self._reader.readline(), 20)).decode(errors="replace")):
            match = re.match(r'\+[\d.]+ \[0 (\S+)\] "(\w+)" .*?\{shop\}:(slots|share:|b:i"|b:)', line)
            if match is None or match[1] == "lua" or '"EVAL" ' in line:  # the first call of a script is sent again
                continue
            kind = {"slots": "budget", "share:": "store", 'b:i"': "store"}.get(match[3]) or KINDS[match[2]]
            if kind != "store" or not seen or seen[-1] != kind:
                seen.append(kind)
        return seen


class Gateways:
    """Two replicas on one Valkey, called over ASGI, whose first quiet window is over."""

    def __init__(self, server: Server, sandbox: Sandbox, clients: list[httpx.AsyncClient], monitor: Monitor) -> None:
        self.server = server
        self.sandbox = sandbox
        self.monitor = monitor
        self._clients = clients

    async def page(self, replica: int = 0, *, q: str = "", cache_control: str = "max-age=3600") -> str:
        """Request the first page of a list; return its `Cache-Status`."""
        headers = {"Prefer": "wait=20", "Cache-Control": cache_control}
        answer = await self._clients[replica].get(f"/tasks?since=-P1D&limit=3&q={q}", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.headers["Cache-Status"]

    async def settled(self) -> None:
        """Wait until all work in the background has ended and all slots are free."""
        await asyncio.sleep(2 * WINDOW_S)
        await self.monitor.seen()

    async def made(self, *expected: str, waits_s: float = WINDOW_S) -> None:
        """Wait for the expected commands. Raise AssertionError if others have been made since the last call, or are
        made within `waits_s`."""
        made: list[str] = []
        async with asyncio.timeout(20):
            while len(made) < len(expected):
                made += await self.monitor.seen()
                await asyncio.sleep(0.01)
        await asyncio.sleep(waits_s)
        made += await self.monitor.seen()
        assert made == list(expected)


@pytest.fixture
async def gateways(valkey: Server) -> AsyncIterator[Gateways]:
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(sandbox_upstream(SandboxOptions(window_s=WINDOW_S)))
        budget = BudgetSettings(calls=5, window_s=WINDOW_S, transit_s=0.1)
        cache = CacheSettings(fresh_s=FRESH_S, settled_s=FRESH_S, stale_while_revalidate_s=600)
        clients = [await started(stack, valkey, sandbox, budget=budget, cache=cache) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", valkey.port)
        stack.callback(writer.close)
        writer.write(b"MONITOR\r\n")
        made = Gateways(valkey, sandbox, clients, Monitor(valkey, reader))
        for replica in range(2):
            await made.page(replica, q=f"first{replica}")
        await made.settled()
        yield made


async def test_a_miss_takes_four_round_trips(gateways: Gateways) -> None:
    """A miss takes two before the call, and two after its answer has been sent; nothing follows."""
    assert "fwd=miss" in await gateways.page(q="miss")
    await gateways.made(*MISS)


async def test_a_hit_takes_at_most_one(gateways: Gateways) -> None:
    """On the replica that fetched the block a hit takes none; on others the first takes one, and later ones none."""
    await gateways.page(q="hit")
    await gateways.made(*MISS)
    assert "taskgate; hit" in await gateways.page(q="hit")
    await gateways.made()
    assert "taskgate; hit" in await gateways.page(1, q="hit")
    await gateways.made("read")
    assert "taskgate; hit" in await gateways.page(1, q="hit")
    await gateways.made()


async def test_joining_a_fetch_of_another_replica_takes_three(gateways: Gateways) -> None:
    """The block is looked up, the fetch is joined instead of begun, and the block read when its message comes."""
    await control(gateways.sandbox).add_fault(Latency(there_ms=700, calls=1))
    fetched = asyncio.create_task(gateways.page(q="join"))
    await gateways.made(*MISS[:2], waits_s=0.0)
    joined = asyncio.create_task(gateways.page(1, q="join"))
    await gateways.made("read", "budget", waits_s=0.0)
    await asyncio.gather(fetched, joined)
    await gateways.made(*MISS[2:], "read")


async def test_a_stale_answer_takes_one(gateways: Gateways) -> None:
    """The block is read once more, in case another replica has renewed it; its renewal is in the background."""
    await gateways.page(q="stale")
    await asyncio.sleep(FRESH_S)
    await gateways.settled()
    assert "detail=renewing" in await gateways.page(q="stale", cache_control="max-stale=600")
    await gateways.made(*MISS)
