"""Granian's HTTP/1.1 server around an ASGI app, in this process and event loop. Why so: docs/adr/0005-serving.md.

Granian hands over each request in a thread of its own. There `at_once` is asked before the event loop hears of it: what
needs nothing awaited is answered without a task and without waiting for the loop's turn.
"""

import asyncio
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import structlog
from granian import _granian
from granian.asgi import LifespanProtocol
from granian.http import HTTP1Settings

from service.settings import ServerSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
AtOnce = Callable[[Scope], tuple[Message, Message] | None]
"""The two messages of an answer, or None where the app must be asked; called from another thread than the loop's."""

_native: Any = _granian  # its own types are older than its code

log = structlog.get_logger("taskgate.serving")


class CannotListen(Exception):
    """The address is taken, not ours, or not to be had."""


class StartFailed(Exception):
    """The app refused to start; the log says why."""


class HttpServer:
    """One app on one address. `at_once` may be taken away while it serves; then every request goes to the app."""

    def __init__(self, app: Application, settings: ServerSettings, *, at_once: AtOnce | None = None) -> None:
        self.at_once = at_once
        self._app = app
        self._settings = settings
        self._stop = _native.WorkerSignal()
        self._loop = asyncio.get_running_loop()

    async def run(self, started: Callable[[], None]) -> None:
        """Start the app, serve until `stop` and until the last request has ended, then shut the app down.

        Raises CannotListen and StartFailed.
        """
        logging.getLogger("_granian").setLevel(logging.ERROR)
        listening = _listening(self._settings)
        lifespan = LifespanProtocol(self._app)  # type: ignore[no-untyped-call]  # Granian's Python is without types
        await lifespan.startup()  # type: ignore[no-untyped-call]
        if lifespan.interrupt:
            raise StartFailed("the app did not start")
        ended = self._loop.create_future()
        self._stop.add_cb(lambda: self._loop.call_soon_threadsafe(ended.set_result, None))
        scheduler = _native.CallbackScheduler(self._loop, None, None, None, None)
        scheduler._schedule_fn = self._arrived
        worker = self._worker(listening)
        worker.serve_async(scheduler, self._loop, self._stop)
        started()
        await ended
        await lifespan.shutdown()  # type: ignore[no-untyped-call]

    def stop(self) -> None:
        """Accept no connection any more, close those that are idle, and end when the last request has."""
        self._stop.set()

    def _arrived(self, request: Any) -> None:
        """Granian's thread has a request: its `scope` and `proto` are an ASGI app's. Nothing may be raised there."""
        try:
            at_once = self.at_once
            answer = None if at_once is None else at_once(request.scope)
            if answer is None:
                self._loop.call_soon_threadsafe(self._begin, request)
            else:  # Granian sends as soon as it is told; what it returns is only to be awaited by who streams
                send = request.proto.send
                send(answer[0])
                send(answer[1])
        except Exception:
            log.exception("server.request_failed")
            request.done()  # 500

    def _begin(self, request: Any) -> None:
        request.taskref(self._loop.create_task(self._serve(request)))

    async def _serve(self, request: Any) -> None:
        request.scope.update(root_path="", state={})
        try:
            await self._app(request.scope, request.proto.receive, request.proto.send)
        except Exception:
            log.exception("server.request_failed")
        finally:
            request.done()  # 500, where nothing was answered

    def _worker(self, listening: Any) -> Any:
        settings = self._settings
        return _native.ASGIWorker(
            1,
            (None, listening),
            None,
            backpressure=settings.connections_max,
            http_mode="1",
            http1_opts=HTTP1Settings(
                header_read_timeout=int(settings.headers_timeout_s * 1000), max_buffer_size=settings.headers_max_bytes
            ),
        )


def _listening(settings: ServerSettings) -> Any:
    """A socket on the address; it listens once it is served. Raises CannotListen.

    Connections inherit from it how long a reader may take nothing: Granian would wait for ever.
    """
    where = f"{settings.host} port {settings.port}"
    try:
        family, kind, proto, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:  # Granian shares an address with processes of its kind
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        holder = _native.ListenerSpec(address[0], settings.port, settings.backlog).build()
    except OSError as exc:
        raise CannotListen(f"{where}: {exc.strerror or exc}") from exc
    except Exception as exc:  # Granian's, a page of Rust frames
        raise CannotListen(f"{where}: {str(exc).partition(chr(10))[0]}") from exc
    if sys.platform == "linux":
        listening = socket.socket(fileno=holder.get_fd())
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(settings.reader_timeout_s * 1000))
        listening.detach()  # it is Granian's to close
    return holder
