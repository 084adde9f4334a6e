"""The demo: what it starts, what it prints, and that nothing is left of it however it ends."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.configuration import load
from service.sandbox.demo import DemoOptions, write_configuration
from service.sandbox.serving import Sandbox
from service.sandbox.valkey import Valkey

STAND_IN = Path(__file__).with_name("stand_in_gateway.py")
DRIVER = f"""
import asyncio, sys
from service.sandbox.demo import DemoOptions, demo
gateway = (sys.executable, {str(STAND_IN)!r})
options = DemoOptions(port=int(sys.argv[1]), gateway=gateway, ready_within_s=float(sys.argv[2]), end_within_s=1)
sys.exit(asyncio.run(demo(options)))
"""


class Started:
    """A demo in a separate process, with a directory for temporary files that identifies all its descendants. It
    writes to files: a descendant that inherited a pipe would delay the wait for the demo's end.
    """

    def __init__(self, process: asyncio.subprocess.Process, place: Path, *, port: int, output: Path) -> None:
        self.process = process
        self.place = place
        self.port = port
        self.output = output

    @property
    def said(self) -> str:
        """Return what it has written to standard output so far."""
        return (self.output / "out").read_text(encoding="utf-8")

    async def up(self) -> None:
        """Wait until it has printed how to try it."""
        async with asyncio.timeout(20):
            while "curl" not in self.said:
                assert self.process.returncode is None, await self.complaint()
                await asyncio.sleep(0.01)

    async def complaint(self) -> str:
        """Return what it wrote to standard error until its end."""
        await self.status()
        return (self.output / "err").read_text(encoding="utf-8")

    async def status(self) -> int:
        """Its exit status."""
        async with asyncio.timeout(20):
            return await self.process.wait()

    def descendants(self) -> list[int]:
        """All processes that know the place, by environment or directory (Valkey wipes the first), but the demo."""
        mark = f"TMPDIR={self.place}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (
                    mark in (entry / "environ").read_bytes() or str(self.place) in os.readlink(entry / "cwd")
                ):
                    found.append(int(entry.name))
        return [pid for pid in found if pid != self.process.pid]

    def valkey_pid(self) -> int:
        """The process id of its Valkey."""
        (pid,) = (pid for pid in self.descendants() if os.readlink(f"/proc/{pid}/exe").endswith("/valkey-server"))
        return pid

    async def nothing_left(self) -> None:
        """Wait until no process, file or directory of it is left."""
        async with asyncio.timeout(20):
            while self.descendants() or list(self.place.iterdir()):
                await asyncio.sleep(0.01)


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: sockets have to fit in."""
    with tempfile.TemporaryDirectory(prefix="tgd-") as directory:
        yield Path(directory)


@pytest.fixture
async def start(place: Path, unused_port: int, tmp_path: Path) -> AsyncIterator[object]:
    """Starts a demo with a stand-in for the gateway; ends it if the test hasn't."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(mode: str = "good", *, ready_within_s: float = 15) -> Started:
            with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-c", DRIVER, str(unused_port), str(ready_within_s)),
                    stdout=out,
                    stderr=err,
                    env={**os.environ, "TMPDIR": str(place), "STAND_IN": mode},
                )
            demo = Started(process, place, port=unused_port, output=tmp_path)
            stack.push_async_callback(_end, demo)
            return demo

        yield started


async def _end(demo: Started) -> None:
    if demo.process.returncode is None:
        demo.process.kill()
    await demo.status()
    for pid in demo.descendants():  # a failing test must leave nothing behind
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_the_demo_says_what_it_runs(start) -> None:
    """Once the gateway is ready the demo names it, its docs, the sandbox, Valkey, and a curl line with the key."""
    demo = await start()
    await demo.up()
    url = f"http://127.0.0.1:{demo.port}"
    assert f"{url}/docs" in demo.said
    assert f"curl -H 'Authorization: Bearer sandbox' '{url}/tasks?app=shop&limit=3'" in demo.said
    store = re.search(r"unix://(\S+)", demo.said)
    assert store is not None
    assert stat.S_ISSOCK(os.stat(store[1]).st_mode)
    upstream = re.search(r"upstream +http://127.0.0.1:(\d+)", demo.said)
    assert upstream is not None
    socket.create_connection(("127.0.0.1", int(upstream[1])), timeout=20).close()
    assert len(demo.descendants()) == 5  # two guards, Valkey, the stand-in and its worker


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_ends_the_demo_and_its_processes(start, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and a closed terminal end it with status 0, and nothing is left."""
    demo = await start()
    await demo.up()
    demo.process.send_signal(number)
    assert await demo.status() == 0
    assert demo.descendants() == []
    assert list(demo.place.iterdir()) == []


async def test_a_killed_demo_leaves_nothing_behind(start) -> None:
    """SIGKILL to the demo ends Valkey, the gateway and its workers, and removes the directory."""
    demo = await start()
    await demo.up()
    demo.process.kill()
    await demo.status()
    await demo.nothing_left()


async def test_a_gateway_that_ignores_sigterm_is_ended(start) -> None:
    """A gateway that ignores SIGTERM is killed, in bounded time."""
    demo = await start("deaf")
    await demo.up()
    demo.process.send_signal(signal.SIGTERM)
    assert await demo.status() == 0
    assert demo.descendants() == []


async def test_the_demo_ends_if_the_gateway_ends_before_it_is_ready(start) -> None:
    """If the gateway ends before it is ready, the demo says so with its status, ends all, and exits with 1."""
    demo = await start("dies")
    assert "the gateway has ended with status 3" in await demo.complaint()
    assert await demo.status() == 1
    assert demo.descendants() == []
    assert list(demo.place.iterdir()) == []


async def test_a_gateway_that_is_never_ready(start) -> None:
    """If the gateway isn't ready in time, the demo says so, ends all, and exits with 1."""
    demo = await start("late", ready_within_s=0.5)
    assert "not ready within 0.5 s" in await demo.complaint()
    assert await demo.status() == 1
    assert demo.descendants() == []
    assert list(demo.place.iterdir()) == []


async def test_the_demo_ends_if_the_gateway_dies(start) -> None:
    """If the gateway dies later, the demo says so, ends all, its workers too, and exits with 1."""
    demo = await start("falls")
    await demo.up()
    _, writer = await asyncio.open_connection("127.0.0.1", demo.port)
    writer.write(b"GET /die HTTP/1.1\r\n\r\n")
    assert "the gateway has ended with status 4" in await demo.complaint()
    writer.close()
    assert await demo.status() == 1
    assert demo.descendants() == []
    assert list(demo.place.iterdir()) == []


async def test_the_demo_ends_if_valkey_dies(start) -> None:
    """If Valkey dies, the demo says so, ends all, and exits with 1."""
    demo = await start()
    await demo.up()
    os.kill(demo.valkey_pid(), signal.SIGKILL)
    assert "the embedded Valkey has ended with status 137" in await demo.complaint()
    assert await demo.status() == 1
    assert demo.descendants() == []
    assert list(demo.place.iterdir()) == []


async def test_the_demo_reports_a_port_in_use(start, unused_port: int) -> None:
    """If the gateway's port is taken the demo says which, starts nothing, and exits with 2."""
    with socket.create_server(("127.0.0.1", unused_port)):
        demo = await start()
        complaint = await demo.complaint()
        assert f"port {unused_port}" in complaint
        assert "Traceback" not in complaint
        assert await demo.status() == 2
        assert demo.descendants() == []
        assert list(demo.place.iterdir()) == []


async def test_the_gateway_accepts_the_demos_configuration(sandbox: Sandbox, embedded: Valkey, tmp_path: Path) -> None:
    """The gateway reads the demo's configuration without a fault or a warning; secrets stand in private files."""
    path = write_configuration(tmp_path, options=DemoOptions(), sandbox=sandbox, store=embedded)
    loaded = load(str(path), {})
    assert loaded.warnings == ()
    settings = loaded.settings
    assert settings.redis.url == embedded.url
    for app in sandbox.upstream.options.apps:
        assert settings.apps[app.name].secret_file == str(tmp_path / f"{app.name}.secret")
        assert (tmp_path / f"{app.name}.secret").read_text() == app.key
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in os.listdir(tmp_path)}
    assert modes == {"taskgate.yaml": 0o600, "shop.secret": 0o600, "news.secret": 0o600}
