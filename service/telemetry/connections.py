"""Reads the state of the callers' server at each scrape: its connections, and how they ended."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from service.server.exchange import ABORT_REASONS
from service.server.http_server import HttpServer
from service.telemetry.families import counters, gauges


class ConnectionMetrics:
    """Collects the state of one server."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics of connections."""
        server = self._server
        text = "Open connections of callers."
        yield gauges("taskgate_connections", text, (), [((), float(server.open_connections))])
        text = "Requests in progress, including streams and watches."
        yield gauges("taskgate_requests_in_flight", text, (), [((), float(server.requests_in_flight))])
        text = "Bytes buffered for connections: unread responses and incomplete request headers."
        yield gauges("taskgate_unsent_bytes", text, (), [((), float(server.unsent_bytes))])
        aborted: dict[tuple[str, ...], float] = {
            (reason,): float(server.aborted_by_reason.get(reason, 0)) for reason in ABORT_REASONS
        }
        text = "Connections of callers that the server closed early, by reason."
        yield counters("taskgate_connections_aborted", text, ("reason",), aborted)
