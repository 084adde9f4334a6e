"""Serve an ASGI app until a signal ends it, then drain and shut down."""

import asyncio
import importlib
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from service.server.asgi import AnswersAtOnce, Application, Lifespan, Refuse
from service.server.http_server import Bounds, HttpServer, refuse_plainly
from service.server.listening import connections_within_files, listening_socket
from service.settings import ServerSettings

LINGER_S = 0.3
"""How long answers carry `Connection: close` before idle connections are closed: a request may be in transit on one."""
REFUSED_S = 1.0
"""How long refusals at the end of the drain may take."""
CLOSE_S = 8.0
"""How long the app's own shutdown may take after the last request: together with the two above, less than 10 s."""

log = structlog.get_logger("taskgate.serving")


class Leaving(Protocol):
    """The app's hooks before its shutdown."""

    def leave(self) -> None:
        """Accept no new work, but continue with the existing work."""
        ...

    def refuse(self) -> None:
        """Refuse the requests that are still waiting."""
        ...


def serve(
    app: Application,
    settings: ServerSettings,
    *,
    at_once: AnswersAtOnce | None = None,
    refusal: Refuse = refuse_plainly,
    leaving: Leaving | None = None,
    watch: Callable[[HttpServer], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, on uvloop if it is installed.

    `at_once` answers what it can before the app is called. After the signal `leaving.leave` is called, no connection is
    accepted, and requests in flight have `drain_s` to end; then those still waiting are refused, and any that continue
    are cut off (a second signal does so at once). Last, the app's lifespan is shut down. `watch` is called with the
    server before it accepts connections.

    Raise CannotListen and StartFailed.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(app, settings, at_once=at_once, refusal=refusal, leaving=leaving, watch=watch))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop factory, or None, for asyncio's own, if it is not installed."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None
    return factory


async def _serve(
    app: Application,
    settings: ServerSettings,
    *,
    at_once: AnswersAtOnce | None,
    refusal: Refuse,
    leaving: Leaving | None,
    watch: Callable[[HttpServer], None] | None,
) -> None:
    stop = asyncio.Event()
    server = HttpServer(app, bounds_of(settings), refusal=refusal, at_once=at_once)
    if watch is not None:
        watch(server)

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("server.stopped_at_once", signal=number.name, requests=server.cancel())
            loop.call_later(REFUSED_S, server.abort)
        else:
            log.info("server.stopping", signal=number.name)
            server.is_closing = True
            if leaving is not None:
                leaving.leave()
            stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    listening = listening_socket(settings.host, settings.port, reader_timeout_s=settings.reader_timeout_s)
    with listening:
        lifespan = Lifespan(app)
        await lifespan.startup()
        if not stop.is_set():
            await server.open(listening, backlog=settings.backlog)
            log.info("server.started", host=settings.host, port=settings.port, loop=type(loop).__module__)
            await stop.wait()
            await _drain(server, leaving, drain_s=settings.drain_s)
        await _closed(lifespan)
    log.info("server.stopped")


def bounds_of(settings: ServerSettings) -> Bounds:
    """Return the bounds of the settings, adapted to the files that this process may open."""
    return Bounds(
        connections_max=connections_within_files(settings.connections_max),
        headers_max_bytes=settings.headers_max_bytes,
        headers_timeout_s=settings.headers_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        reader_timeout_s=settings.reader_timeout_s,
        unsent_max_bytes=settings.unsent_max_bytes,
    )


async def _drain(server: HttpServer, leaving: Leaving | None, *, drain_s: float) -> None:
    """Let the requests in flight end; refuse those that take too long, then cancel them."""
    await asyncio.sleep(LINGER_S)
    server.stop()
    ended = asyncio.create_task(server.ended())
    await asyncio.wait({ended}, timeout=drain_s)
    if not ended.done() and leaving is not None:
        leaving.refuse()
        await asyncio.wait({ended}, timeout=REFUSED_S)
    if not ended.done():
        log.warning("server.cut_off", requests=server.cancel(), drain_s=drain_s)
        await asyncio.wait({ended}, timeout=REFUSED_S)
        server.abort()
        await ended


async def _closed(lifespan: Lifespan) -> None:
    closing = asyncio.create_task(lifespan.shutdown())
    await asyncio.wait({closing}, timeout=CLOSE_S)
    if not closing.done():
        log.error("server.stuck", waited_s=CLOSE_S)
        closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
