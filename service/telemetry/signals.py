"""All signals of one process: builds the observers that its settings call for, and opens what they need."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from prometheus_client import make_asgi_app

from service import __version__
from service.budget.scheduler.rules import window_s_of
from service.model.calls import CallKind
from service.observe.batch import OnRequestBatch
from service.observe.request import RequestObserver
from service.server.asgi import Application
from service.server.http_server import HttpServer
from service.settings import Settings
from service.store.redis_store import OnStoreCall
from service.telemetry.call_log import call_logger
from service.telemetry.metrics import Metrics
from service.telemetry.metrics_server import serving_metrics
from service.telemetry.state import ObservedParts
from service.telemetry.traces import traces_of
from service.telemetry.upstream_calls import CalledApp
from service.upstream.call_events import CallTracing, OnUpstreamCall

if TYPE_CHECKING:
    from service.telemetry.spans import Traces


class Signals:
    """Metrics if a port is set, traces if an endpoint is set; otherwise `metrics` and `tracing` are None."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], *, callers: Callable[[], Collection[str]]
    ) -> None:
        """`callers` returns the current names of the callers."""
        regions = {name: app.region or "custom" for name, app in settings.apps.items()}
        self._settings = settings.telemetry
        self.metrics: Metrics | None = None
        if self._settings.metrics_port is not None:
            windows_s = {kind: window_s_of(settings.budget, kind) for kind in CallKind}
            self.metrics = Metrics(
                version=__version__,
                apps={name: CalledApp(region=region, windows_s=windows_s) for name, region in regions.items()},
                callers=callers,
                clock=lambda: asyncio.get_running_loop().time(),
            )
        self._traces: Traces | None = traces_of(self._settings, environ, regions=regions, version=__version__)
        metrics, log_call = self.metrics, call_logger(regions)
        self.listeners: tuple[OnRequestBatch, ...] = () if metrics is None else (metrics.requests,)
        """The listeners for batches of finished requests, in addition to the access log."""
        self.observers: tuple[RequestObserver, ...] = () if self._traces is None else (self._traces.ended,)
        """The observers that are called with each request within its span."""
        self.on_call: tuple[OnUpstreamCall, ...] = (log_call, *((metrics.calls, metrics.recent) if metrics else ()))
        """The observers of upstream calls."""
        self.on_store_call: OnStoreCall | None = None if metrics is None else metrics.redis
        """The observer of calls to Redis, if any."""
        self.tracing: CallTracing | None = self._traces
        """The tracer of upstream calls, if any."""

    def reloaded(self, *, ok: bool, needs_restart: bool) -> None:
        """Called after each attempt to reload the configuration; `ok` is false if it was rejected."""
        if self.metrics is not None:
            self.metrics.reloaded(ok=ok, needs_restart=needs_restart)

    def observe(self, parts: ObservedParts) -> None:
        """Include the state of these parts in the metrics, if there are any."""
        if self.metrics is not None:
            self.metrics.observe(parts)

    def add_server(self, server: HttpServer) -> None:
        """Include the connections of callers in the metrics, if there are any."""
        if self.metrics is not None:
            self.metrics.add_server(server)

    def traced(self, app: Application) -> Application | None:
        """Return the ASGI application wrapped in tracing, or None if that is disabled."""
        return None if self._traces is None else self._traces.traced(app)

    @asynccontextmanager
    async def opened(self, *, probes: Application) -> AsyncIterator[None]:
        """Measure, serve metrics and export within the context; `probes` is the app that serves the probes.

        Raise CannotServeMetrics.
        """
        async with AsyncExitStack() as parts:
            if self._traces is not None:
                await parts.enter_async_context(self._traces.flushed())
            host, port = self._settings.metrics_host, self._settings.metrics_port
            if self.metrics is not None and port is not None:
                metrics = make_asgi_app(self.metrics.registry)
                await parts.enter_async_context(serving_metrics(metrics, probes=probes, host=host, port=port))
                await parts.enter_async_context(self.metrics.lag.measured())
            yield
