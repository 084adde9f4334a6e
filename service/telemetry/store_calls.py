"""Counts calls to Redis: how long they take, and why they fail."""

from collections import Counter
from collections.abc import Iterator
from typing import get_args

from prometheus_client.metrics_core import Metric

from service.model.errors import StoreDetail
from service.store.redis_store import Op
from service.telemetry.families import BRIEF_S, Histogram, counters, histograms


class StoreMetrics:
    """An `OnStoreCall`. Every kind of error starts at 0, so that the first one shows as an increase."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, ...], Histogram] = {}
        self._errors: Counter[tuple[str, ...]] = Counter(
            {(op, detail): 0 for op in get_args(Op) for detail in get_args(StoreDetail)}
        )

    def __call__(self, op: Op, took_s: float, detail: StoreDetail | None) -> None:
        """Count one call."""
        seconds = self._seconds.get((op,))
        if seconds is None:
            seconds = self._seconds[op,] = Histogram(BRIEF_S)
        seconds.observe(took_s)
        if detail is not None:
            self._errors[op, detail] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield all store metrics."""
        text = "Duration of a call to Redis, including the wait for a connection; failures count, too."
        yield histograms("taskgate_redis_call_duration_seconds", text, ("op",), self._seconds)
        yield counters("taskgate_redis_errors", "Failed calls to Redis, by reason.", ("op", "detail"), self._errors)
