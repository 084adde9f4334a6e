"""All metrics of one process, in their own registry. Every label comes from a closed set."""

import platform
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric

from service.server.http_server import HttpServer
from service.telemetry.app_states import AppStateCollector
from service.telemetry.connections import ConnectionMetrics
from service.telemetry.expiry import ExpiryCollector
from service.telemetry.families import counters, gauges, histograms
from service.telemetry.lag import LoopLag
from service.telemetry.logs import lost_log_lines
from service.telemetry.recent_calls import RecentAppCalls
from service.telemetry.requests import RequestMetrics
from service.telemetry.state import ObservedParts, StateCollector
from service.telemetry.store_calls import StoreMetrics
from service.telemetry.upstream_calls import CalledApp, CallMetrics


class Metrics:
    """Counts events as they occur, in its attributes; after `observe`, also reads the state of other parts."""

    def __init__(
        self,
        *,
        version: str,
        apps: Mapping[str, CalledApp],
        callers: Callable[[], Collection[str]],
        clock: Callable[[], float],
    ) -> None:
        """`callers` returns the current names of the callers; `clock` is the event loop's."""
        self.requests = RequestMetrics(apps=apps, callers=callers)
        self.calls = CallMetrics(apps, clock=clock)
        self.recent = RecentAppCalls(apps, clock=clock)
        self.redis = StoreMetrics()
        self.lag = LoopLag()
        self._version = version
        self._reloads: Counter[tuple[str, ...]] = Counter({("ok",): 0, ("refused",): 0})
        self._config_is_good = True
        self._needs_restart = False
        self._config_read_at_s = time.time()
        self._flush: Callable[[], None] = lambda: None
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        for collector in (self, self.requests, self.calls, self.redis):
            self.registry.register(collector)

    def add_server(self, server: HttpServer) -> None:
        """Also report the connections of callers."""
        self.registry.register(ConnectionMetrics(server))

    def observe(self, parts: ObservedParts) -> None:
        """Also report the state of these parts."""
        self._flush = parts.flush
        for collector in (
            StateCollector(parts),
            AppStateCollector(parts.apps, self.recent),
            ExpiryCollector(parts.settings),
        ):
            self.registry.register(collector)

    def reloaded(self, *, ok: bool, needs_restart: bool) -> None:
        """Count a reload of the configuration as successful or rejected."""
        self._needs_restart = needs_restart
        self._config_is_good = ok
        if ok:
            self._config_read_at_s = time.time()
        self._reloads["ok" if ok else "refused",] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the process-wide metrics. Collected first, so that batched records are flushed and counted."""
        self._flush()
        python = platform.python_version()
        yield gauges(
            "taskgate_build_info",
            "Version of Taskgate and of Python; always 1.",
            ("version", "python"),
            [((self._version, python), 1.0)],
        )
        text = "Reloads of the configuration, applied or rejected."
        yield counters("taskgate_configuration_reloads", text, ("result",), self._reloads)
        text = "1 if the current configuration is in use, 0 while it is rejected."
        yield gauges("taskgate_config_last_reload_successful", text, (), [((), float(self._config_is_good))])
        text = "Time at which the configuration in use was loaded, in seconds since the epoch."
        yield gauges("taskgate_config_last_reload_success_timestamp_seconds", text, (), [((), self._config_read_at_s)])
        text = "1 if a changed setting or file takes effect only at a restart."
        yield gauges("taskgate_restart_needed", text, (), [((), float(self._needs_restart))])
        lost: dict[tuple[str, ...], float] = {(reason,): float(count) for reason, count in lost_log_lines().items()}
        yield counters("taskgate_log_lines_lost", "Log lines that were lost, by reason.", ("reason",), lost)
        text = "Delay of the event loop."
        yield histograms("taskgate_event_loop_lag_seconds", text, (), {(): self.lag.seconds})
