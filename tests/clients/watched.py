"""A list that changes while its watchers are disconnected, and to which they lose access in the end."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
from msgspec.structs import replace

from service.settings import CallerSettings
from tests.event_reader import EVENT_STREAM
from tests.http.fake_gateway import FakeGateway, task_of
from tests.http.site import AUTH, KEY, Web, key_table
from tests.settings import hashed

SAID = [
    "3 tasks",
    "changed 1001: title",
    "added 1003",
    "added 1004",
    "removed 1000: deleted",
    "4 tasks",
    "ended: /problems/unauthenticated",
]
"""What each program prints."""


class CutProxy:
    """Forwards connections to a port, keeps what clients send, and can cut them all."""

    def __init__(self, port: int) -> None:
        self.requests: list[bytes] = []
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side closes it."""
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._open |= {writer, there_writer}
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward(reader, there_writer, kept=self.requests))
                both.create_task(self._forward(there_reader, writer, kept=[]))
        finally:
            self._open -= {writer, there_writer}

    def cut(self) -> None:
        """Reset all connections, as a failing network does."""
        for writer in self._open:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: list[bytes]) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                kept.append(data)
                writer.write(data)
                await writer.drain()
        writer.close()


class Watched:
    """The HTTP side around a list, behind a proxy, with one watcher that is never cut off."""

    def __init__(self, web: Web, proxy: CutProxy, url: str) -> None:
        self.url = url
        self._web = web
        self._proxy = proxy

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the programs find the gateway."""
        return {"TASKGATE_URL": self.url, "TASKGATE_KEY": KEY}

    @property
    def last_event_ids(self) -> list[str]:
        """The `Last-Event-ID` of each request for events so far, empty for none."""
        sent = b"".join(self._proxy.requests).decode("latin-1")
        heads = [head.lower() for head in sent.split("\r\n\r\n") if "text/event-stream" in head]
        found = (re.search(r"^last-event-id: *(.+)\r?$", head, flags=re.MULTILINE) for head in heads)
        return [match[1] if match else "" for match in found]

    def cut_and_change(self) -> None:
        """Cut all clients off; add two tasks, change one and remove one."""
        self._proxy.cut()
        changed = msgspec.json.encode(replace(task_of(1), title="Another\u2028title"))
        self._web.gateway.listed = (changed, *(msgspec.json.encode(task_of(number)) for number in range(2, 5)))

    def revoke(self) -> None:
        """Revoke the key of all clients."""
        self._web.callers.replace(key_table({"single": CallerSettings(keys=(hashed("another"),), apps=("shop",))}))


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    """Serve a list of three tasks."""
    gateway = FakeGateway()
    gateway.listed = gateway.listed[:3]
    gateway.changes_of_chunks = {"lifetime_s": 0.0}
    web = Web(gateway=gateway)
    async with web.client, web.on_a_socket() as port, httpx.AsyncClient(timeout=60) as client:
        proxy = CutProxy(port)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{port}/tasks?app=shop"
        async with server, client.stream("GET", url, headers=AUTH | EVENT_STREAM) as steady:
            assert steady.status_code == 200
            yield Watched(web, proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            proxy.cut()
