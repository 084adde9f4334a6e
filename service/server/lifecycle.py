"""Serves an ASGI app until a signal ends it, and through its end. Why so: docs/adr/0005-serving.md."""

import asyncio
import signal
from contextlib import suppress
from typing import Any, Protocol

import structlog

from service.server.granian import Application, AtOnce, HttpServer, Message, Receive, Scope, Send, StartFailed
from service.settings import ServerSettings

LINGER_S = 0.3
"""How long answers say `Connection: close` before idle connections are closed: a request may be on its way on one."""
REFUSED_S = 1.0
"""How long those who are refused at the end of the drain may take to hear of it."""
CLOSE_S = 8.0
"""How long the app's own shutdown may take after the last request has ended: with the two above, less than 10 s."""

log = structlog.get_logger("taskgate.serving")


class RequestsInFlight:
    """The app, and the requests that are in it."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._requests: set[asyncio.Task[Any]] = set()
        self._cut_off = False
        self.closing = False
        """Whether answers to requests from now on ask their callers to take another connection next time."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
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


def serve(
    app: Application, settings: ServerSettings, *, at_once: AtOnce | None = None, leaving: Leaving | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; `at_once` answers what it can before the app is asked, until then.

    Then `leaving` is told to leave, no connection is accepted any more, and requests in flight have `drain_s` to end;
    whoever still waits after that is refused, and what goes on nevertheless is cut off (a second signal does so at
    once). Then the app's lifespan is shut down. Raises CannotListen and StartFailed.
    """
    asyncio.run(_serve(app, settings, at_once, leaving))


async def _serve(app: Application, settings: ServerSettings, at_once: AtOnce | None, leaving: Leaving | None) -> None:
    started, stop = asyncio.Event(), asyncio.Event()
    in_flight = RequestsInFlight(app)
    server = HttpServer(in_flight, settings, at_once=at_once)
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("server.hurried", signal=number.name, requests=in_flight.cancel())
        else:
            log.info("server.stopping", signal=number.name)
            in_flight.closing = True
            server.at_once = None
            if leaving is not None:
                leaving.leave()
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    serving = asyncio.create_task(server.run(started.set))
    await _first_of(serving, started)
    if not serving.done():
        log.info("server.started", host=settings.host, port=settings.port)
        await _first_of(serving, stop)
    if not serving.done():
        await asyncio.wait({serving}, timeout=LINGER_S)
        server.stop()
        await _drain(serving, in_flight, leaving, drain_s=settings.drain_s)
    await serving
    if not stop.is_set():
        raise StartFailed("the server ended by itself")
    log.info("server.stopped")


async def _drain(
    serving: asyncio.Task[None], in_flight: RequestsInFlight, leaving: Leaving | None, *, drain_s: float
) -> None:
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


async def _first_of(serving: asyncio.Task[None], event: asyncio.Event) -> None:
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
