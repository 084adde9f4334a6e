"""A client with an upstream of its own for each test."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.upstream.bench import SECRET, Bench, Upstream


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A client for a server of its own; afterwards nothing of either is left."""
    before = asyncio.all_tasks()
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET + "\n")
    upstream = Upstream()
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
    bench = Bench(upstream, server.sockets[0].getsockname()[1], secret_file)
    try:
        yield bench
        bench.assert_nothing_leaks()
    finally:
        await bench.client.aclose()
        server.close()
        await upstream.all_closed()
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        _, pending = await asyncio.wait(left, timeout=2)
        assert not pending
