"""An HTTP/1.1 server on asyncio and llhttp, in this process and event loop. Why our own: docs/adr/0009-server.md."""

import asyncio
import ctypes
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from service.server.asgi import Application, Client, EncodedResponse, Refuse, ResponseLookup, Scope
from service.server.buffered_bytes import BufferedBytes
from service.server.connection import ClientConnection
from service.server.exchange import AbortReason, Exchange
from service.server.listening import raising_cannot_listen
from service.server.request_head import HeadParser
from service.server.response_head import DateHeader

ACCEPTED_AT_ONCE = 32

log = structlog.get_logger("taskgate.serving")


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on clients' use of this process. Times are in seconds."""

    connections_max: int
    headers_max_bytes: int
    headers_timeout_s: float
    idle_timeout_s: float
    reader_timeout_s: float
    unsent_max_bytes: int


class HttpServer:
    """Serves one app on one listening socket.

    `response_cache` may return a response before the app is called; `refusal` returns the response to input that never
    reaches the app.
    """

    def __init__(
        self, app: Application, limits: ServerLimits, *, refusal: Refuse, response_cache: ResponseLookup | None = None
    ) -> None:
        self.limits = limits
        self.refusal = refusal
        self._response_cache = response_cache
        self.head_parser = HeadParser()
        self.date_header = DateHeader()
        self.buffered = BufferedBytes(limits.unsent_max_bytes)
        self.is_closing = False
        """Whether responses from now on close their connections."""
        self.aborted_by_reason: Counter[AbortReason] = Counter()
        self._app = app
        self._loop = asyncio.get_running_loop()
        self.now_s = self._loop.time
        self.call_soon = self._loop.call_soon
        self._connections: set[ClientConnection] = set()
        self._idle: dict[ClientConnection, None] = {}
        self._listener: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._trim_heap = heap_trimmer()
        self._is_cut_off = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    @property
    def requests_in_flight(self) -> int:
        """The number of requests in progress, streams included."""
        return sum(connection.task is not None for connection in self._connections)

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes buffered for connections."""
        return self.buffered.total

    async def open(self, listening: socket.socket, *, backlog: int) -> None:
        """Accept connections from now on. Raise CannotListen if another process has begun to listen meanwhile."""
        host, port = listening.getsockname()[:2]
        with raising_cannot_listen(host, port):
            # asyncio accepts up to `backlog` connections before the first callback, perhaps more than there are files.
            self._listener = await self._loop.create_server(
                lambda: ClientConnection(self), sock=listening, backlog=ACCEPTED_AT_ONCE
            )
            listening.listen(backlog)
        self._sweep_later()

    def stop(self) -> None:
        """Stop accepting connections, close the idle ones, and close the others after their responses."""
        self.is_closing = True
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._idle):
            connection.close_idle()

    async def ended(self) -> None:
        """Wait, after `stop`, until the last connection is closed."""
        await self._is_empty.wait()
        if self._sweep is not None:
            self._sweep.cancel()

    def cancel(self) -> int:
        """Cancel the requests in progress, with 503 if no response has begun. Return how many there were."""
        self._is_cut_off = True
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        for task in tasks:
            task.cancel()
        return len(tasks)

    def abort(self) -> None:
        """Close all connections at once."""
        for connection in tuple(self._connections):
            connection.abort("shutdown")

    # Called by connections:

    def opened(self, connection: ClientConnection) -> None:
        """Register a new connection; at the limit, close the longest idle one to make room."""
        if len(self._connections) >= self.limits.connections_max:
            longest_idle = next(iter(self._idle), None)
            if longest_idle is not None:
                longest_idle.abort("room")
                self.closed(longest_idle)
        is_full = len(self._connections) >= self.limits.connections_max
        self._connections.add(connection)
        self._is_empty.clear()
        connection.deadline_s = self.now_s() + self.limits.idle_timeout_s
        self._idle[connection] = None
        if is_full:
            self.aborted_by_reason["full"] += 1
            connection.refuse(503, has_more=False)

    def closed(self, connection: ClientConnection) -> None:
        """Unregister a connection."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        self.buffered.set(connection, 0)
        if not self._connections:
            self._is_empty.set()

    def mark_idle(self, connection: ClientConnection) -> None:
        """Record that a connection is idle from now on."""
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def lookup_head(self, head: bytes, client: Client | None) -> EncodedResponse | None:
        """Return a response that needs no parsed head, if there is one; after an error, the head is parsed."""
        try:
            return None if self._response_cache is None else self._response_cache.lookup_head(head, client)
        except Exception:
            log.exception("server.request_failed")
            return None

    def lookup(self, scope: Scope, head: bytes) -> EncodedResponse | None:
        """Return a response that does not need the app, if there is one; after an error, the app is called."""
        try:
            return None if self._response_cache is None else self._response_cache.lookup(scope, head)
        except Exception:
            log.exception("server.request_failed")
            return None

    def begin(self, connection: ClientConnection, exchange: Exchange) -> None:
        """Call the app for a request."""
        self._idle.pop(connection, None)
        connection.task = self._loop.create_task(self._serve(connection, exchange))

    async def _serve(self, connection: ClientConnection, exchange: Exchange) -> None:
        try:
            await self._app(exchange.request.scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            if not self._is_cut_off:
                raise
            await self._end(connection, exchange, 503)
        except Exception:
            log.exception("server.request_failed")
            await self._end(connection, exchange, 500)
        else:
            await self._end(connection, exchange, 500)

    async def _end(self, connection: ClientConnection, exchange: Exchange, status: int) -> None:
        """Ensure that an exchange is complete: refuse it, or cut the response off if it has begun."""
        if exchange.is_complete:
            return
        if exchange.has_begun or connection.is_lost:
            connection.abort("cut_off")
            return
        refusal = Exchange(connection, exchange.request)
        for message in self.refusal(status, connection.client):
            await refusal.send(message)

    # Timers:

    def _sweep_later(self) -> None:
        limits = self.limits
        shortest_s = min(limits.headers_timeout_s, limits.idle_timeout_s, limits.reader_timeout_s)
        self._sweep = self._loop.call_later(min(1.0, shortest_s / 2), self._expire)

    def _expire(self) -> None:
        now_s = self.now_s()
        for connection in [each for each in self._connections if each.deadline_s <= now_s]:
            connection.expire()
        if self.buffered.has_shrunk():
            self._trim_heap()
        self._sweep_later()


def empty_refusal(status: int, client: Client | None = None) -> Any:
    """Return a refusal without a body, for servers that need no other."""
    del client
    return {"type": "http.response.start", "status": status, "headers": ()}, {"type": "http.response.body", "body": b""}


def heap_trimmer() -> Callable[[], None]:
    """Return a function that releases free heap pages to the system: glibc's `malloc_trim`, elsewhere a no-op."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))
