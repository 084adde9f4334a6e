"""Raw calls to the sandbox upstream: what goes over the wire, byte by byte."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

import pytest

from service.sandbox.serving import Sandbox
from service.sandbox.valkey import Valkey, valkey
from tests.ports import free_port

MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Got:
    """All bytes received until the other side closed, and how it closed."""

    raw: bytes
    reset: bool

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1])

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)

    @property
    def code(self) -> object:
        return self.json["ErrorCode"]


async def exchange(base_url: str, request: bytes) -> Got:
    """Send bytes and read until the other side closes; at most ten seconds."""
    address = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    raw, reset = b"", False
    try:
        async with asyncio.timeout(20):
            writer.write(request)
            while piece := await reader.read(65_536):
                raw += piece
    except ConnectionResetError:
        reset = True
    finally:
        writer.close()
    return Got(raw=raw, reset=reset)


@pytest.fixture
def send(sandbox: Sandbox) -> Callable[[bytes], Awaitable[Got]]:
    """Sends bytes to the sandbox."""

    async def sent(request: bytes) -> Got:
        return await exchange(sandbox.base_url, request)

    return sent


@pytest.fixture
def call_bytes(sandbox: Sandbox, usersig: Callable[..., str]) -> Callable[..., bytes]:
    """Writes a call of the sandbox's first app, valid except for what `url`, `body` and the others change."""

    def written(
        *,
        url: dict[str, object] | None = None,
        body: dict[str, object] | bytes | None = None,
        method: str = "POST",
        path: str = "/v4/timpush/list_sched_task",
        close: bool = True,
    ) -> bytes:
        app = sandbox.app
        now_s = int(time.time())
        parameters = {
            "usersig": usersig(identifier=app.admin, sdkappid=app.sdkappid, key=app.key, time_s=now_s),
            "identifier": app.admin,
            "sdkappid": app.sdkappid,
            "random": 4294967295,
            "contenttype": "json",
        } | (url or {})
        asked = {
            "Sdkappid": app.sdkappid,
            "Offset": 0,
            "Want": 20,
            "OrderBy": "schedat",
            "Asc": False,
            "BeginTime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_s - 30 * 86_400)),
            "EndTime": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(now_s + 30 * 86_400)),
        }
        sent = body if isinstance(body, bytes) else json.dumps(asked | (body or {})).encode()
        query = urlencode({name: value for name, value in parameters.items() if value is not MISSING})
        connection = "close" if close else "keep-alive"
        head = f"{method} {path}?{query} HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n"
        return head.encode() + b"Content-Length: %d\r\n\r\n" % len(sent) + sent

    return written


@pytest.fixture
def call(send: Callable[[bytes], Awaitable[Got]], call_bytes: Callable[..., bytes]) -> Callable[..., Awaitable[Got]]:
    """Makes a call on a separate connection."""

    async def called(**changed: object) -> Got:
        return await send(call_bytes(**changed))

    return called


@pytest.fixture
def missing() -> object:
    """Stands for a parameter that is left out of the URL."""
    return MISSING


@pytest.fixture
def unused_port() -> int:
    """A loopback port on which nothing listens now."""
    return free_port()


@pytest.fixture
async def embedded() -> AsyncIterator[Valkey]:
    """The embedded Valkey that the demo runs."""
    async with valkey() as server:
        await server.ready()
        yield server
