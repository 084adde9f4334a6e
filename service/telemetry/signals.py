"""All signals of one process, as its settings want them: what each part is given, and what is opened."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from prometheus_client import make_asgi_app

from service import __version__
from service.gateway.call_events import OnCall, Tracing
from service.observe.batch import Listener
from service.observe.request import Observer
from service.server.asgi import Application
from service.settings import Settings
from service.store.redis_store import OnCall as OnStoreCall
from service.telemetry.call_log import call_logger
from service.telemetry.exposition import exposed
from service.telemetry.metrics import Metrics
from service.telemetry.state import Watched
from service.telemetry.traces import traces_of
from service.telemetry.upstream_calls import CalledApp

if TYPE_CHECKING:
    from service.telemetry.spans import Traces


class Signals:
    """Metrics where a port is set, traces where an endpoint is set; `metrics` and `tracing` are None where not."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], *, callers: Callable[[], Collection[str]]
    ) -> None:
        """`callers` are the names of the callers that there are now."""
        regions = {name: app.region or "custom" for name, app in settings.apps.items()}
        self._settings = settings.telemetry
        self._log_call = call_logger(regions)
        self.metrics: Metrics | None = None
        if self._settings.metrics_port is not None:
            window_s = settings.budget.window_s
            self.metrics = Metrics(
                version=__version__,
                apps={name: CalledApp(region=region, window_s=window_s) for name, region in regions.items()},
                callers=callers,
                clock=lambda: asyncio.get_running_loop().time(),
            )
        self._traces: Traces | None = traces_of(self._settings, environ, regions=regions, version=__version__)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Who is told of requests, beside the access log, when it suits."""
        return () if self.metrics is None else (self.metrics.requests,)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of each request within its span."""
        return () if self._traces is None else (self._traces.ended,)

    @property
    def on_call(self) -> tuple[OnCall, ...]:
        """Who is told of upstream calls."""
        return (self._log_call,) if self.metrics is None else (self._log_call, self.metrics.calls)

    @property
    def on_store_call(self) -> OnStoreCall | None:
        """Who is told of calls to Redis."""
        return None if self.metrics is None else self.metrics.redis

    @property
    def tracing(self) -> Tracing | None:
        """Who traces upstream calls."""
        return self._traces

    def reloaded(self, *, ok: bool) -> None:
        """The configuration was read anew, or was refused."""
        if self.metrics is not None:
            self.metrics.reloaded(ok=ok)

    def watch(self, watched: Watched) -> None:
        """Show what these parts know, where there are metrics."""
        if self.metrics is not None:
            self.metrics.watch(watched)

    def edge(self, app: Any) -> Any:
        """The ASGI application, traced where traces are wanted."""
        return app if self._traces is None else self._traces.edge(app)

    @asynccontextmanager
    async def opened(self, *, probes: Application) -> AsyncIterator[None]:
        """Measure, expose and send as long as this lasts; `probes` is the app that answers them. Raise CannotExpose."""
        async with AsyncExitStack() as parts:
            if self._traces is not None:
                await parts.enter_async_context(self._traces.flushed())
            host, port = self._settings.metrics_host, self._settings.metrics_port
            if self.metrics is not None and port is not None:
                metrics = make_asgi_app(self.metrics.registry)
                await parts.enter_async_context(exposed(metrics, probes=probes, host=host, port=port))
                await parts.enter_async_context(self.metrics.lag.measured())
            yield
