"""The operators' listener: `GET /metrics` and the probes, on a port that callers cannot exhaust."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from service.server.asgi import Application, Message, Receive, Scope, Send
from service.server.http_server import HttpServer, ServerLimits, empty_refusal
from service.server.listening import CannotListen, listening_socket

LIMITS = ServerLimits(
    connections_max=64,
    headers_max_bytes=8 * 1024,
    headers_timeout_s=5.0,
    idle_timeout_s=75.0,
    reader_timeout_s=10.0,
    unsent_max_bytes=8 * 1024 * 1024,
)
"""Enough for a few scrapers and probes; beyond that, the connections that have been idle longest are closed."""

PROBES = frozenset(("/livez", "/readyz"))

log = structlog.get_logger(__name__)


class CannotServeMetrics(Exception):
    """The address for metrics and probes is in use, not permitted or not available."""


@asynccontextmanager
async def serving_metrics(
    metrics: Application, *, probes: Application, host: str, port: int, limits: ServerLimits = LIMITS
) -> AsyncIterator[int]:
    """Serve within the context; yield the port, which the system picks if `port` is 0. Raise CannotServeMetrics."""
    server = HttpServer(_MetricsRoutes(metrics, probes), limits, refusal=empty_refusal)
    try:
        with listening_socket(host, port, reader_timeout_s=limits.reader_timeout_s) as listening:
            await server.open(listening, backlog=limits.connections_max)
            try:
                yield listening.getsockname()[1]
            finally:
                server.stop()
                server.abort()
                await server.ended()
    except CannotListen as exc:
        # The server only reports that start-up failed; a traceback would add nothing.
        log.error("metrics.cannot_listen", host=host, port=port, reason=str(exc))  # noqa: TRY400
        raise CannotServeMetrics(str(exc)) from exc


class _MetricsRoutes:
    """Routes each request to whichever of the two apps serves its path."""

    def __init__(self, metrics: Application, probes: Application) -> None:
        self._metrics = metrics
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["path"] in PROBES:
            await self._probes(scope, receive, send)
        elif scope["path"] != "/metrics":
            await _send_all(send, empty_refusal(404))
        elif scope["method"] not in ("GET", "HEAD"):
            start, body = empty_refusal(405)
            await _send_all(send, (start | {"headers": ((b"allow", b"GET, HEAD"),)}, body))
        else:
            await self._metrics(scope, receive, send)


async def _send_all(send: Send, messages: tuple[Message, ...]) -> None:
    for message in messages:
        await send(message)
