"""Counts upstream calls: their results and durations, and how many began in the busiest window."""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import msgspec
from prometheus_client.metrics_core import Metric

from service.model.budgets import worst_window
from service.model.calls import CallKind
from service.telemetry.families import CALL_S, Histogram, counters, gauges, histograms
from service.upstream.call_events import UpstreamCallEnd
from service.upstream.verdicts import RESULTS

KEEP_S = 60.0
"""How long a call counts towards the busiest window."""
KEEP_MAX = 100_000


class CalledApp(msgspec.Struct, frozen=True, kw_only=True):
    """An app whose calls are counted: its region, and the windows of its budgets."""

    region: str
    windows_s: Mapping[CallKind, float]


class CallMetrics:
    """Counts finished calls; an `OnUpstreamCall`. `clock` is the event loop's.

    Each result is present from the start, as 0: Prometheus sees no increase in a series that starts at 1.
    """

    def __init__(self, apps: Mapping[str, CalledApp], *, clock: Callable[[], float]) -> None:
        self._apps = apps
        self._clock = clock
        self._results: Counter[tuple[str, ...]] = Counter(
            {
                (name, kind.value, app.region, result): 0
                for name, app in apps.items()
                for kind in app.windows_s
                for result in RESULTS
            }
        )
        self._seconds: dict[tuple[str, ...], Histogram] = {}
        self._sent_at_s: dict[tuple[str, CallKind], list[float]] = {
            (name, kind): [] for name, app in apps.items() for kind in app.windows_s
        }

    def __call__(self, end: UpstreamCallEnd) -> None:
        """Count one call."""
        name, kind = end.call.app, end.call.kind
        region = self._apps[name].region
        self._results[name, kind.value, region, end.result] += 1
        self._seconds.setdefault((name, kind.value, region), Histogram(CALL_S)).observe(end.took_s)
        if end.sent_at_s is not None:
            sent_at_s = self._sent_at_s[name, kind]
            insort(sent_at_s, end.sent_at_s)
            if len(sent_at_s) >= KEEP_MAX or sent_at_s[0] < end.sent_at_s - 2 * KEEP_S:
                self._forget(sent_at_s)

    def collect(self) -> Iterator[Metric]:
        """Yield all call metrics."""
        yield counters(
            "taskgate_upstream_calls",
            "Upstream calls of this replica, by result.",
            ("app", "call", "region", "result"),
            self._results,
        )
        yield histograms(
            "taskgate_upstream_call_duration_seconds",
            "Duration of an upstream call, including connecting.",
            ("app", "call", "region"),
            self._seconds,
        )
        worst = []
        for (name, kind), sent_at_s in self._sent_at_s.items():
            self._forget(sent_at_s)
            calls = worst_window(sent_at_s, self._apps[name].windows_s[kind])
            worst.append(((name, kind.value), float(calls)))
        yield gauges(
            "taskgate_worst_window_calls",
            "The highest number of calls that this replica sent within one window of the budget, in the last minute.",
            ("app", "call"),
            worst,
        )

    def _forget(self, sent_at_s: list[float]) -> None:
        since_s = self._clock() - KEEP_S
        del sent_at_s[: max(sum(1 for at_s in sent_at_s if at_s < since_s), len(sent_at_s) - KEEP_MAX // 2)]
