"""An HTTP/1.1 server on asyncio and llhttp, in this process and event loop. Why our own: docs/adr/0009-server.md."""

import asyncio
import ctypes
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from service.server.answer_head import Clock
from service.server.asgi import AnswersAtOnce, Application, Client, EncodedAnswer, Refuse, Scope
from service.server.connection import ClientConnection
from service.server.exchange import AbortReason, Exchange
from service.server.held_bytes import HeldBytes
from service.server.listening import naming
from service.server.request_head import HeadReader

ACCEPTED_AT_ONCE = 32

log = structlog.get_logger("taskgate.serving")


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """Limits on clients' use of this process. Times are in seconds."""

    connections_max: int
    headers_max_bytes: int
    headers_timeout_s: float
    idle_timeout_s: float
    reader_timeout_s: float
    unsent_max_bytes: int


class HttpServer:
    """Serves one app on one listening socket.

    `at_once` may return an answer before the app is called; `refusal` returns the answer to input that never reaches
    the app.
    """

    def __init__(
        self, app: Application, bounds: Bounds, *, refusal: Refuse, at_once: AnswersAtOnce | None = None
    ) -> None:
        self.bounds = bounds
        self.refusal = refusal
        self.at_once = at_once
        self.heads = HeadReader()
        self.clock = Clock()
        self.held = HeldBytes(bounds.unsent_max_bytes)
        self.is_closing = False
        """Whether answers from now on close their connections."""
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
        """The number of requests being answered, streams included."""
        return sum(connection.task is not None for connection in self._connections)

    @property
    def unsent_bytes(self) -> int:
        """The number of bytes buffered for connections."""
        return self.held.total

    async def open(self, listening: socket.socket, *, backlog: int) -> None:
        """Accept connections from now on. Raise CannotListen if another process has begun to listen meanwhile."""
        host, port = listening.getsockname()[:2]
        with naming(host, port):
            # asyncio accepts up to `backlog` connections before the first callback, perhaps more than there are files.
            self._listener = await self._loop.create_server(
                lambda: ClientConnection(self), sock=listening, backlog=ACCEPTED_AT_ONCE
            )
            listening.listen(backlog)
        self._sweep_later()

    def stop(self) -> None:
        """Stop accepting connections, close the idle ones, and close the others after their answers."""
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
        """Cancel the requests in progress, with 503 if no answer has begun. Return how many there were."""
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
        if len(self._connections) >= self.bounds.connections_max:
            longest_idle = next(iter(self._idle), None)
            if longest_idle is not None:
                longest_idle.abort("room")
                self.closed(longest_idle)
        is_full = len(self._connections) >= self.bounds.connections_max
        self._connections.add(connection)
        self._is_empty.clear()
        connection.deadline_s = self.now_s() + self.bounds.idle_timeout_s
        self._idle[connection] = None
        if is_full:
            self.aborted("full")
            connection.turn_away()

    def closed(self, connection: ClientConnection) -> None:
        """Unregister a connection."""
        self._connections.discard(connection)
        self._idle.pop(connection, None)
        self.held.set(connection, 0)
        if not self._connections:
            self._is_empty.set()

    def idles(self, connection: ClientConnection) -> None:
        """Record that a connection is idle from now on."""
        self._idle.pop(connection, None)
        self._idle[connection] = None

    def aborted(self, reason: AbortReason) -> None:
        """Count a connection that was aborted by the server."""
        self.aborted_by_reason[reason] += 1

    def repeat(self, head: bytes, client: Client | None) -> EncodedAnswer | None:
        """Return an answer that needs no parsed head, if there is one; after an error, the head is parsed."""
        try:
            return None if self.at_once is None else self.at_once.repeat(head, client)
        except Exception:
            log.exception("server.request_failed")
            return None

    def lookup(self, scope: Scope, head: bytes) -> EncodedAnswer | None:
        """Return an answer that does not need the app, if there is one; after an error, the app is called."""
        try:
            return None if self.at_once is None else self.at_once.lookup(scope, head)
        except Exception:
            log.exception("server.request_failed")
            return None

    def begin(self, connection: ClientConnection, exchange: Exchange, scope: Scope) -> None:
        """Call the app for a request."""
        self._idle.pop(connection, None)
        connection.task = self._loop.create_task(self._serve(connection, exchange, scope))

    async def _serve(self, connection: ClientConnection, exchange: Exchange, scope: Scope) -> None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
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
        """Ensure that an exchange is complete: refuse it, or cut the answer off if it has begun."""
        if exchange.is_complete:
            return
        if exchange.has_begun or connection.is_lost:
            connection.abort("cut_off")
            return
        fresh = Exchange(connection, exchange.request)
        for message in self.refusal(status, connection.client):
            await fresh.send(message)

    # Timers:

    def _sweep_later(self) -> None:
        bounds = self.bounds
        shortest_s = min(bounds.headers_timeout_s, bounds.idle_timeout_s, bounds.reader_timeout_s)
        self._sweep = self._loop.call_later(min(1.0, shortest_s / 2), self._expire)

    def _expire(self) -> None:
        now_s = self.now_s()
        for connection in [each for each in self._connections if each.deadline_s <= now_s]:
            connection.expire()
        if self.held.has_shrunk():
            self._trim_heap()
        self._sweep_later()


def refuse_plainly(status: int, client: Client | None = None) -> Any:
    """Refuse without a body, for servers without a `refusal`."""
    del client
    return {"type": "http.response.start", "status": status, "headers": ()}, {"type": "http.response.body", "body": b""}


def heap_trimmer() -> Callable[[], None]:
    """Return a function that releases free heap pages to the system: glibc's `malloc_trim`, elsewhere a no-op."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if trim is None else (lambda: trim(0))
