"""Counts requests. Runs for every request, including cache hits: one lookup, one bisection, two additions."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from prometheus_client.metrics_core import Metric

from service.model.pages import Source
from service.observe.outcomes import (
    CALLS_OF_ROUTES,
    DECLINED,
    FALLBACK,
    HUNG_UP,
    PAGES,
    REFUSED,
    STREAMED,
    TASKS_ROUTE,
    UNKNOWN_TASK,
    problem_of_outcome,
)
from service.observe.request import LABELS_MAX, RequestLabels, RequestRecord
from service.telemetry.families import REQUEST_S, WAIT_S, Histogram, counters, histograms

OTHER = "other"
WAIT_OUTCOMES = (Source.FETCHED.value, Source.JOINED.value, FALLBACK, STREAMED, "refused", HUNG_UP, "failed")
"""Values of `outcome` for waits in line: how the waiting requests ended."""

_NO_PROBLEMS = PAGES | {STREAMED, HUNG_UP, None}
_NEVER_WAITED = DECLINED | {Source.HIT.value, Source.STALE.value, None}
_ALWAYS_WAITED = (Source.FETCHED.value, Source.JOINED.value, "refused")

_FAULT = (TASKS_ROUTE, "GET", "500", "none")
"""Present from the start, as 0, for an alert: Prometheus sees no increase in a series that starts at 1."""

_Key = tuple[str, str, int, str | None, str | None, str | None]


class _Series:
    """All requests that differ only in their times. `waits` is None if they never wait, and shared with other series.

    Without `always_waits`, only those that have waited count in it: others have failed before.
    """

    __slots__ = ("always_waits", "seconds", "waits")

    def __init__(self, waits: Histogram | None, *, always_waits: bool) -> None:
        self.seconds = Histogram(REQUEST_S)
        self.waits = waits
        self.always_waits = always_waits


class RequestMetrics:
    """Counts finished requests; an `OnRequestBatch`. `callers` returns the caller names that may appear as labels."""

    def __init__(self, *, apps: Collection[str], callers: Callable[[], Collection[str]]) -> None:
        self._apps = frozenset(apps)
        self._callers = callers
        self._series: dict[_Key, _Series] = {}
        self._by_labels: dict[RequestLabels, _Series] = {}
        self._waits: dict[tuple[str, ...], Histogram] = {}

    def __call__(self, records: Sequence[RequestRecord]) -> None:
        """Count the requests."""
        for each in records:
            series = self._by_labels.get(each.labels)
            if series is None:
                series = self._series_for(each.labels)
            series.seconds.observe(each.duration_s)
            if series.waits is not None and (each.waited_s > 0 or series.always_waits):
                series.waits.observe(each.waited_s)

    def collect(self) -> Iterator[Metric]:
        """Yield all request metrics."""
        requests: Counter[tuple[str, ...]] = Counter({_FAULT: 0})
        by_caller: Counter[tuple[str, ...]] = Counter()
        problems: Counter[tuple[str, ...]] = Counter()
        seconds: dict[tuple[str, ...], Histogram] = {}
        for (method, route, status, detail, caller, app), series in self._series.items():
            count, outcome = series.seconds.count, outcome_of(detail)
            requests[route, method, str(status), outcome] += count
            seconds.setdefault((route, outcome), Histogram(REQUEST_S)).add(series.seconds)
            if caller is not None:
                by_caller[caller, app or "", outcome] += count
            if detail not in _NO_PROBLEMS and detail is not None:
                problems[problem_of_outcome(detail),] += count
        yield counters("taskgate_requests", "Completed requests.", ("route", "method", "status", "outcome"), requests)
        yield histograms(
            "taskgate_request_duration_seconds",
            "Time from a request's header to the end of the response.",
            ("route", "outcome"),
            seconds,
        )
        yield counters(
            "taskgate_caller_requests", "Requests by authenticated callers.", ("caller", "app", "outcome"), by_caller
        )
        yield counters(
            "taskgate_problems",
            "Problems sent to callers, by type.",
            ("problem",),
            problems,
        )
        yield histograms(
            "taskgate_line_wait_seconds",
            "Time in line of requests that needed a fetch, by how they ended.",
            ("app", "call", "caller", "outcome"),
            self._waits,
        )

    def _series_for(self, labels: RequestLabels) -> _Series:
        """Return the series for these labels, replacing names that are not in a closed set."""
        caller, app = labels.caller, labels.app
        if caller is not None and caller not in self._callers():
            caller = OTHER
        if app is not None and app not in self._apps:
            app = None
        key = (labels.method, labels.route, labels.status, labels.outcome, caller, app)
        series = self._series.get(key)
        if series is None:
            waits, outcome, kind = None, _wait_outcome_of(labels), CALLS_OF_ROUTES.get(labels.route)
            if outcome is not None and kind is not None:
                waits = self._waits.setdefault((app or "", kind.value, caller or "", outcome), Histogram(WAIT_S))
            always_waits = outcome in _ALWAYS_WAITED and labels.outcome != UNKNOWN_TASK
            series = self._series[key] = _Series(waits, always_waits=always_waits)
        if (caller, app) == (labels.caller, labels.app):  # else the name may be known after the next reload
            if len(self._by_labels) >= LABELS_MAX:
                self._by_labels.clear()
            self._by_labels[labels] = series
        return series


def outcome_of(detail: str | None) -> str:
    """Return the value of `outcome` for a record's outcome.

    It is the source of a page, or `fallback` if it is stale because no fetch was possible; `refused` if no fetch was
    possible in time, `declined` if the caller had ruled out a fetch or a wait; `none` for all others.
    """
    if detail in PAGES:
        return detail
    if detail in DECLINED:
        return "declined"
    return "refused" if detail in REFUSED else "none"


def _wait_outcome_of(labels: RequestLabels) -> str | None:
    """Return the member of WAIT_OUTCOMES for requests with these labels; None if they never wait for a turn."""
    detail = labels.outcome
    if labels.route not in CALLS_OF_ROUTES or detail in _NEVER_WAITED:
        return None
    if detail == UNKNOWN_TASK:
        return Source.FETCHED.value
    if detail in WAIT_OUTCOMES:
        return detail
    return "refused" if detail in REFUSED else "failed"
