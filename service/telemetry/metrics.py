"""All metrics of one process, in a registry of their own. Every label is from a closed set."""

import platform
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from service.telemetry.families import counters, gauges, histograms
from service.telemetry.lag import Lag
from service.telemetry.requests import RequestMetrics
from service.telemetry.state import StateCollector, Watched
from service.telemetry.store_calls import StoreMetrics
from service.telemetry.upstream_calls import CalledApp, CallMetrics

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Metrics:
    """What is counted as it happens stands here as an attribute; what the parts know is read from `watch` on."""

    def __init__(
        self,
        *,
        version: str,
        apps: Mapping[str, CalledApp],
        callers: Callable[[], Collection[str]],
        clock: Callable[[], float],
    ) -> None:
        """`callers` are the names of the callers that there are; `clock` is the loop's."""
        self.requests = RequestMetrics(apps=apps, callers=callers)
        self.calls = CallMetrics(apps, clock=clock)
        self.redis = StoreMetrics()
        self.lag = Lag()
        self._version = version
        self._reloads: Counter[tuple[str, ...]] = Counter({("ok",): 0, ("refused",): 0})
        self._config_is_good = True
        self._config_read_at_s = time.time()
        self._settle: Callable[[], None] | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        for collector in (self.requests, self.calls, self.redis, self):
            self._registry.register(collector)

    def watch(self, watched: Watched) -> None:
        """Show what these parts know, too."""
        self._settle = watched.settle
        self._registry.register(StateCollector(watched))

    def reloaded(self, *, ok: bool) -> None:
        """Count a reload of the configuration, or that it was refused."""
        self._config_is_good = ok
        if ok:
            self._config_read_at_s = time.time()
        self._reloads["ok" if ok else "refused",] += 1

    def collect(self) -> Iterator[Metric]:
        """What belongs to the process as a whole."""
        python = platform.python_version()
        yield gauges("taskgate_build_info", "What runs here.", ("version", "python"), [((self._version, python), 1.0)])
        text = "Reloads of the configuration, and those that were refused."
        yield counters("taskgate_configuration_reloads", text, ("result",), self._reloads)
        text = "1 where the configuration as it stands now is in use, 0 while it is refused."
        yield gauges("taskgate_config_last_reload_successful", text, (), [((), float(self._config_is_good))])
        text = "When the configuration in use was read, in seconds since the epoch."
        yield gauges("taskgate_config_last_reload_success_timestamp_seconds", text, (), [((), self._config_read_at_s)])
        text = "How late the event loop is."
        yield histograms("taskgate_event_loop_lag_seconds", text, (), {(): self.lag.seconds})

    def text(self, accept: str) -> tuple[str, bytes]:
        """The type and the text of all metrics, in the format that an `Accept` field prefers."""
        if self._settle is not None:
            self._settle()
        if "application/openmetrics-text" in accept:
            text: bytes = generate_openmetrics(self._registry)  # type: ignore[no-untyped-call]  # it has no types
            return OPEN, text
        return PLAIN, generate_latest(self._registry)
