"""Serve an ASGI app until a signal ends it, then drain and shut down."""

import asyncio
import importlib
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import structlog

from service.server.asgi import Application, Lifespan, Refuse, ResponseLookup
from service.server.http_server import HttpServer, ServerLimits, empty_refusal
from service.server.listening import listening_socket, raise_file_limit
from service.settings import ServerSettings

KEEP_ALIVE_GRACE_S = 0.3
"""How long responses carry `Connection: close` before idle connections are closed: a request may be in transit."""
REJECT_S = 1.0
"""How long refusals at the end of the drain may take."""
CLOSE_S = 8.0
"""How long the app's own shutdown may take after the last request: together with the two above, less than 10 s."""

log = structlog.get_logger("taskgate.serving")


class ShutdownHooks(Protocol):
    """The app's hooks before its shutdown."""

    def begin_drain(self) -> None:
        """Accept no new work, but continue with the existing work."""
        ...

    def reject_waiting(self) -> None:
        """Reject the requests that are still waiting."""
        ...


def serve(
    app: Application,
    settings: ServerSettings,
    *,
    response_cache: ResponseLookup | None = None,
    refusal: Refuse = empty_refusal,
    hooks: ShutdownHooks | None = None,
    on_server: Callable[[HttpServer], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, on uvloop if it is installed.

    `response_cache` is tried before the app. After the signal `hooks.begin_drain` is called, no connection is
    accepted, and requests in flight have `drain_s` to end; then those still waiting are refused, and any that continue
    are cut off (a second signal does so at once). Last, the app's lifespan is shut down. `on_server` is called with the
    server before it accepts connections.

    Raise CannotListen and StartFailed.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(
            _serve(app, settings, response_cache=response_cache, refusal=refusal, hooks=hooks, on_server=on_server)
        )


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
    response_cache: ResponseLookup | None,
    refusal: Refuse,
    hooks: ShutdownHooks | None,
    on_server: Callable[[HttpServer], None] | None,
) -> None:
    stop = asyncio.Event()
    server = HttpServer(app, limits_of(settings), refusal=refusal, response_cache=response_cache)
    if on_server is not None:
        on_server(server)

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            log.warning("server.stopped_at_once", signal=number.name, requests=server.cancel())
            loop.call_later(REJECT_S, server.abort)
        else:
            log.info("server.stopping", signal=number.name)
            server.is_closing = True
            if hooks is not None:
                hooks.begin_drain()
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
            await _drain(server, hooks, drain_s=settings.drain_s)
        await _shut_down(lifespan)
    log.info("server.stopped")


def limits_of(settings: ServerSettings) -> ServerLimits:
    """Return the limits of the settings, adapted to the files that this process may open."""
    return ServerLimits(
        connections_max=raise_file_limit(settings.connections_max),
        headers_max_bytes=settings.headers_max_bytes,
        headers_timeout_s=settings.headers_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        reader_timeout_s=settings.reader_timeout_s,
        unsent_max_bytes=settings.unsent_max_bytes,
    )


async def _drain(server: HttpServer, hooks: ShutdownHooks | None, *, drain_s: float) -> None:
    """Let the requests in flight end; refuse those that take too long, then cancel them."""
    await asyncio.sleep(KEEP_ALIVE_GRACE_S)
    server.stop()
    ended = asyncio.create_task(server.ended())
    await asyncio.wait({ended}, timeout=drain_s)
    if not ended.done() and hooks is not None:
        hooks.reject_waiting()
        await asyncio.wait({ended}, timeout=REJECT_S)
    if not ended.done():
        log.warning("server.cut_off", requests=server.cancel(), drain_s=drain_s)
        await asyncio.wait({ended}, timeout=REJECT_S)
        server.abort()
        await ended


async def _shut_down(lifespan: Lifespan) -> None:
    closing = asyncio.create_task(lifespan.shutdown())
    await asyncio.wait({closing}, timeout=CLOSE_S)
    if not closing.done():
        log.error("server.stuck", waited_s=CLOSE_S)
        closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
