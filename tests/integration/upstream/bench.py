"""An upstream made of a plain socket server, which plays one scenario on each connection."""

import asyncio
import gzip
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from service.model.queries import At, Query, Range
from service.model.tasks import Listing, Task
from service.settings import AppSettings, UpstreamSettings
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import NO_TRACE, CallTrace
from service.upstream.client import UpstreamClient
from service.upstream.secret import secret_of
from service.upstream.signer import Signer

SECRET = "5bd2850fff3ecb11d7c805251c51ee463a25727bddc2385f3fa8bfee1bb93b5e"
TASK = {
    "TaskID": 1,
    "Sdkappid": 88888888,
    "CreateAt": "2025-05-20 08:30:00",
    "Type": "All",
    "SchedAt": "2025-06-01 10:00:00",
    "Content": {"MsgRandom": 1},
    "Title": "t",
    "Desc": "d",
    "Status": "pending",
    "DispatchSuccess": 0,
    "DispatchErr": "",
    "PushTaskID": "",
}
PAGE: dict[str, Any] = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "Total": 1, "Tasks": [TASK]}
FOUND: dict[str, Any] = {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "TaskInfo": TASK}

Scene = Callable[["Connection"], Awaitable[None]]


class Connection:
    """One connection, from the upstream's side."""

    def __init__(self, upstream: "Upstream", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.upstream = upstream
        self.writer = writer
        self._reader = reader

    async def request(self) -> bytes:
        """Read one whole request and keep it; b"" where the client has closed."""
        try:
            head = await self._read(self._reader.readuntil(b"\r\n\r\n"))
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await self._read(self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        self.upstream.requests.append(head + body)
        return head + body

    async def _read(self, reading: Awaitable[bytes]) -> bytes:
        try:
            data = await reading
        except asyncio.IncompleteReadError as exc:
            self.upstream.received += exc.partial
            raise
        self.upstream.received += data
        return data

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK", headers: str = "") -> None:
        await self.send(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body)

    def reset(self) -> None:
        """End with a TCP reset."""
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_closed(self) -> None:
        """Wait until the client closes."""
        try:
            while data := await self._reader.read(65536):
                self.upstream.received += data
        except ConnectionError:
            pass


class Upstream:
    """The server: what it has received, and the scenario that it plays."""

    def __init__(self) -> None:
        self.scene: Scene = pages()
        self.requests: list[bytes] = []
        self.received = b""
        self.connected = asyncio.Event()
        self.connections = 0
        self.open = 0
        self._all_closed = asyncio.Condition()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.connected.set()
        try:
            await self.scene(Connection(self, reader, writer))
        except ConnectionError:
            pass  # the client has left in the middle of an answer, which some scenes provoke
        finally:
            writer.close()
            self.open -= 1
            async with self._all_closed:
                self._all_closed.notify_all()

    async def all_closed(self) -> None:
        """Wait until no connection is left."""
        async with asyncio.timeout(20), self._all_closed:
            await self._all_closed.wait_for(lambda: self.open == 0)


def pages(body: bytes = b"", *, status: str = "200 OK", headers: str = "") -> Scene:
    """Answer every request with the same body, by default a page of one task, and keep the connection."""

    async def play(connection: Connection) -> None:
        while await connection.request():
            await connection.answer(body or json.dumps(PAGE).encode(), status=status, headers=headers)

    return play


def refusals(*codes: int, text: str = "their words") -> Scene:
    """Answer with error codes one after the other, over all connections; then with pages."""
    left = list(codes)

    async def play(connection: Connection) -> None:
        while await connection.request():
            code = left.pop(0) if left else 0
            body = {"ActionStatus": "FAIL", "ErrorCode": code, "ErrorInfo": text} if code else PAGE
            await connection.answer(json.dumps(body).encode())

    return play


def raw(*pieces: bytes, pause_s: float = 0.0, hang: bool = False) -> Scene:
    """Answer the first request with these bytes, then close, or hang until the client closes."""

    async def play(connection: Connection) -> None:
        await connection.request()
        for piece in pieces:
            await connection.send(piece)
            await asyncio.sleep(pause_s)
        if hang:
            await connection.until_closed()

    return play


def reset_after(*pieces: bytes) -> Scene:
    """Answer the first request with these bytes, then reset the connection."""

    async def play(connection: Connection) -> None:
        await connection.request()
        for piece in pieces:
            await connection.send(piece)
        connection.reset()

    return play


async def echo(connection: Connection) -> None:
    """Send back what came, as an echo service at a wrong address would."""
    await connection.send(await connection.request())


def bomb() -> Scene:
    """A gzip answer that is a thousand times larger when unpacked."""
    packed = gzip.compress(b" " * 4_000_000)
    return pages(packed, headers="Content-Encoding: gzip\r\n")


class RecordedTrace:
    """Records what the client reports of a call; `fields` are sent with it."""

    def __init__(self, *fields: tuple[str, str]) -> None:
        self.fields = fields
        self.steps: list[str] = []

    def sends(self, method: str, url: str) -> None:
        """Record the attempt."""
        self.steps.append(f"{method} {url}")

    def answered(self, status: int) -> None:
        """Record the answer."""
        self.steps.append(str(status))


class Bench:
    """A client and what a test needs to use it."""

    def __init__(self, upstream: Upstream, port: int, secret_file: Path) -> None:
        self.upstream = upstream
        self.port = port
        self.base = f"http://127.0.0.1:{port}"
        self.secret_file = secret_file
        self.steady_s = 1000.0
        self.wall_s = 1_700_000_000.0
        self.begun = 0
        self.use()

    def use(self, *hosts: str, proxy_password: str | None = None, **settings: Any) -> None:
        """Replace the client by one for these hosts, with these fields of `UpstreamSettings`."""
        self.app = UpstreamApp(name="shop", sdkappid=88888888, admin="admin", hosts=hosts or (self.base,))
        app_settings = AppSettings(sdkappid=88888888, admin="admin", secret_file=str(self.secret_file))
        self.signer = Signer(self.app, secret_of(app_settings, {}), valid_s=86_400)
        self.client = UpstreamClient(
            UpstreamSettings(**settings),
            signers=[self.signer],
            proxy_password=proxy_password,
            wall=lambda: self.wall_s,
            steady=lambda: self.steady_s,
        )

    async def before_send(self) -> None:
        self.begun += 1

    async def fetch(
        self,
        before_send: Callable[[], Awaitable[None]] | None = None,
        *,
        trace: CallTrace = NO_TRACE,
        offset: int = 0,
    ) -> Listing:
        query = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=86_400))
        return await self.client.fetch(
            self.app,
            query,
            Range(since_s=0, until_s=86_400),
            offset=offset,
            want=20,
            before_send=before_send or self.before_send,
            trace=trace,
        )

    async def get_task(self, task_id: int = 1, *, trace: CallTrace = NO_TRACE) -> Task | None:
        return await self.client.get_task(self.app, task_id, before_send=self.before_send, trace=trace)

    def assert_nothing_leaks(self) -> None:
        """No connection is in use."""
        assert self.client.connections_in_use == 0
