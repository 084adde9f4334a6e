"""Blocks that Redis has lost are fetched again, even if a replica remembers them: a whole gateway, a real Valkey."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from service.sandbox.serving import Sandbox, sandbox_upstream
from service.sandbox.upstream import SandboxOptions
from service.settings import BudgetSettings, CacheSettings
from tests.integration.gateway.started import started
from tests.servers import Server

WINDOW_S = 0.2
FRESH_S = 0.3
BLOCKS = "taskgate:{shop}:b:*"


class Gateway:
    """One gateway, called over ASGI."""

    def __init__(self, server: Server, sandbox: Sandbox, client: httpx.AsyncClient) -> None:
        self.server = server
        self.sandbox = sandbox
        self._client = client

    async def page(self, *, wait_s: float = 20, cache_control: str = "max-stale=0") -> httpx.Response:
        """The first page of a list."""
        headers = {"Prefer": f"wait={wait_s}", "Cache-Control": cache_control}
        return await self._client.get("/tasks?since=-P1D&limit=3", headers=headers)

    def scripts(self) -> int:
        """The number of scripts that Redis has run."""
        counted = self.server.run("INFO", "commandstats")
        return sum(counted.get(name, {"calls": 0})["calls"] for name in ("cmdstat_evalsha", "cmdstat_eval"))


@pytest.fixture
async def gateway(valkey: Server) -> AsyncIterator[Gateway]:
    """A gateway whose first quiet window is over, and one page of which is stored and stale."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(sandbox_upstream(SandboxOptions(window_s=WINDOW_S)))
        client = await started(
            stack,
            valkey,
            sandbox,
            budget=BudgetSettings(calls=5, window_s=WINDOW_S, transit_s=0.1),
            cache=CacheSettings(fresh_s=FRESH_S, settled_s=FRESH_S),
        )
        gateway = Gateway(valkey, sandbox, client)
        assert (await gateway.page()).status_code == 200
        await asyncio.sleep(FRESH_S + 0.05)
        yield gateway


def _each(server: Server, change: Callable[[str], Any]) -> None:
    keys = server.run("KEYS", BLOCKS)
    assert keys
    for key in keys:
        change(key.decode())


def _overwrite(server: Server, key: str, offset: str, text: str) -> None:
    """Change a value from an offset on; a hash becomes a value."""
    if server.run("TYPE", key) == b"string":
        server.run("SETRANGE", key, offset, text)
    else:
        server.run("SET", key, text)


LOSSES: dict[str, Callable[[Server], Any]] = {
    "deleted": lambda server: _each(server, lambda key: server.run("DEL", key)),
    "all data lost": lambda server: server.run("FLUSHALL"),
    "expired": lambda server: _each(server, lambda key: server.run("PEXPIRE", key, "1")),
    "damaged": lambda server: _each(server, lambda key: _overwrite(server, key, "40", "?????")),
    "of another format": lambda server: _each(server, lambda key: _overwrite(server, key, "0", "\x7f")),
    "cut short": lambda server: _each(server, lambda key: server.run("SET", key, "short")),
    "empty": lambda server: _each(server, lambda key: server.run("SET", key, "")),
    "of another type": lambda server: _each(
        server, lambda key: (server.run("DEL", key), server.run("RPUSH", key, "a", "b"))
    ),
}


@pytest.mark.parametrize("cache_control", ["max-stale=0", "no-cache"])
@pytest.mark.parametrize("loss", LOSSES)
async def test_a_block_that_redis_lost_is_fetched_again(gateway: Gateway, loss: str, cache_control: str) -> None:
    """One call and a few script calls fetch it again, and the response is fresh."""
    before = gateway.scripts()
    LOSSES[loss](gateway.server)
    await asyncio.sleep(0.005)
    page = await gateway.page(cache_control=cache_control)
    assert page.status_code == 200, page.text
    assert "fwd=" in page.headers["Cache-Status"]
    assert int(page.headers["Age"]) <= 5
    assert gateway.scripts() - before < 30
