"""Serves an ASGI app over HTTP/1.1 with Granian, in this process. Why so: docs/adr/0005-serving.md."""

import asyncio
import os
import signal
import socket
import stat
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.errors import FatalError
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from service.settings import ServerSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

LISTEN_S = 5.0
"""How long after the app's start Granian may take until it listens."""
LINGER_S = 0.3
"""How long answers say `Connection: close` before idle connections are closed: a request may be on its way on one."""
REFUSED_S = 1.0
"""How long those who are refused at the end of the drain may take to hear of it."""
CLOSE_S = 8.0
"""How long the app's own shutdown may take after the last request has ended: with the two above, less than 10 s."""

# Granian configures logging when it is made: `incremental` lets it set a level and nothing else.
_LOGGING: dict[str, Any] = {"version": 1, "incremental": True, "handlers": {}, "loggers": {}}

log = structlog.get_logger("taskgate.serving")


class CannotListen(Exception):
    """The address is taken, not ours, or not to be had."""


class StartFailed(Exception):
    """The app refused to start; the log says why."""


class InFlight:
    """The app, and the requests that are in it."""

    def __init__(self, app: Application, started: Callable[[], None]) -> None:
        self._app = app
        self._started = started
        self._requests: set[asyncio.Task[Any]] = set()
        self._cut_off = False
        self.closing = False
        """Whether answers to requests from now on ask their callers to take another connection next time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        task = asyncio.current_task()
        if task is not None:  # an ASGI server runs each request in a task; the type can't know
            self._requests.add(task)

        try:
            await self._app(scope, receive, _closing(send) if self.closing else send)
        except asyncio.CancelledError:
            if not self._cut_off:
                raise
            with suppress(RuntimeError):  # an answer had begun: it stays cut off
                await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"1")]})
                await send({"type": "http.response.body", "body": b""})
        finally:
            if task is not None:
                self._requests.discard(task)

    def cancel(self) -> int:
        """End the requests that are still running with 503, where nothing was answered yet; returns how many."""
        self._cut_off = True
        for task in self._requests:
            task.cancel()
        return len(self._requests)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            await send(message)
            if message["type"] == "lifespan.startup.complete":
                self._started()

        await self._app(scope, receive, tell)


def _closing(send: Send) -> Send:
    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await send(message)

    return answer


class Leaving(Protocol):
    """What the app is told before its shutdown."""

    def leave(self) -> None:
        """The end has been asked for: take no more work, but go on with what there is."""
        ...

    def refuse(self) -> None:
        """The time for that is over: answer whoever still waits."""
        ...


def serve(app: Application, settings: ServerSettings, *, leaving: Leaving | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Then `leaving` is told to leave, no connection is accepted any more, and requests in flight have `drain_s` to end;
    whoever still waits after that is refused, and what goes on nevertheless is cut off (a second signal does so at
    once). Then the app's lifespan is shut down. Raises CannotListen and StartFailed.
    """
    asyncio.run(_serve(app, settings, leaving))


async def _serve(app: Application, settings: ServerSettings, leaving: Leaving | None) -> None:
    started, stop = asyncio.Event(), asyncio.Event()
    in_flight = InFlight(app, started.set)
    _check_address(settings)
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("server.hurried", signal=number.name, requests=in_flight.cancel())
        else:
            log.info("server.stopping", signal=number.name)
            if leaving is not None:
                leaving.leave()
            in_flight.closing = True
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    server = _server(in_flight, settings)
    serving = asyncio.create_task(_run(server))
    await _first_of(serving, started)
    if not serving.done():
        await _cut_off_readers(settings)
        log.info("server.started", host=settings.host, port=settings.port)
        await _first_of(serving, stop)
    if not serving.done():
        await asyncio.wait({serving}, timeout=LINGER_S)
        server.stop()  # type: ignore[no-untyped-call]  # Granian leaves it without types
        await _drain(serving, in_flight, leaving, drain_s=settings.drain_s)
    await serving
    if not stop.is_set():
        raise StartFailed("the app did not start" if not started.is_set() else "the server ended by itself")
    log.info("server.stopped")


async def _drain(serving: asyncio.Task[None], in_flight: InFlight, leaving: Leaving | None, *, drain_s: float) -> None:
    """Wait for the requests in flight, then for the app; what takes longer than it may is refused, then cancelled."""
    await asyncio.wait({serving}, timeout=drain_s)
    if not serving.done() and leaving is not None:
        leaving.refuse()
        await asyncio.wait({serving}, timeout=REFUSED_S)
    if serving.done():
        return
    log.warning("server.cut_off", requests=in_flight.cancel(), drain_s=drain_s)
    await asyncio.wait({serving}, timeout=CLOSE_S)
    if not serving.done():
        log.error("server.stuck", waited_s=CLOSE_S)
        serving.cancel()


async def _run(server: Server) -> None:
    try:
        await server.serve()
    except FatalError as exc:
        raise StartFailed("the app did not start") from exc
    except asyncio.CancelledError:
        raise
    except Exception as exc:
        raise CannotListen(str(exc).partition("\n")[0]) from exc


async def _first_of(serving: asyncio.Task[None], event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting


def _server(app: Application, settings: ServerSettings) -> Server:
    return Server(
        app,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGI,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=int(settings.headers_timeout_s * 1000), max_buffer_size=settings.headers_max_bytes
        ),
        websockets=False,
        backlog=settings.backlog,
        backpressure=settings.connections_max,
        log_level=LogLevels.error,
        log_dictconfig=_LOGGING,
        log_access=False,
    )


async def _cut_off_readers(settings: ServerSettings) -> None:
    """Let the kernel end connections whose readers take nothing: Granian waits for them without end.

    Connections inherit this from the socket that listens. Granian makes that one by itself, a moment after the app has
    started, and hands it out to nobody.
    """
    if sys.platform != "linux":
        return
    for _ in range(int(LISTEN_S / 0.01)):
        if any(_bound_readers(fd, settings) for fd in map(int, os.listdir("/proc/self/fd"))):
            return
        await asyncio.sleep(0.01)
    log.warning("server.readers_unbounded", port=settings.port)


def _bound_readers(fd: int, settings: ServerSettings) -> bool:
    """Set the bound on the descriptor, if it is the socket that listens; tells whether it is."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        found = socket.socket(fileno=fd)
        try:
            if not found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) or found.getsockname()[1] != settings.port:
                return False
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.reader_timeout_s * 1000))
        finally:
            found.detach()  # it is Granian's to close
    except OSError:  # closed meanwhile
        return False
    return True


def _check_address(settings: ServerSettings) -> None:
    """Try the address: Granian's own refusal is a page of Rust frames. Raises CannotListen."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as exc:
        raise CannotListen(f"{settings.host} port {settings.port}: {exc.strerror or exc}") from exc
