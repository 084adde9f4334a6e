"""Counts requests for pages and their outcomes for the usage store, under the columns of `Counts`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from service.model.pages import Source
from service.observe.outcomes import DECLINED, FALLBACK, PAGES, REFUSED, TASKS_ROUTE
from service.observe.request import RequestLabels, RequestRecord

Count = Callable[[str, str, int], None]
"""Adds to a caller's column: `UsageStore.count`."""

_COLUMNS = {Source.HIT.value: "hits", Source.STALE.value: "stale", FALLBACK: "stale"} | dict.fromkeys(
    REFUSED | DECLINED, "refusals"
)


class UsageObserver:
    """A `Listener`. Counts page requests of known callers to apps that have a usage store; ignores all others."""

    def __init__(self, usage_stores: Mapping[str, Count]) -> None:
        self._usage_stores = usage_stores

    def __call__(self, seen: Sequence[RequestRecord]) -> None:
        """Count the requests, adding each sum once."""
        for labels, number in Counter([each.labels for each in seen]).items():
            self._count(labels, "requests", number)
            if labels.outcome in _COLUMNS:
                self._count(labels, _COLUMNS[labels.outcome], number)
        waits = Counter([each.labels for each in seen if each.waited_s > 0 and each.labels.outcome in PAGES])
        for labels, number in waits.items():
            self._count(labels, "waits", number)

    def _count(self, labels: RequestLabels, column: str, number: int) -> None:
        count = self._usage_stores.get(labels.app or "")
        if labels.route == TASKS_ROUTE and labels.caller is not None and count is not None:
            count(labels.caller, column, number)
