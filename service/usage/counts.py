"""Counts requests for tasks and their outcomes for the usage stores, under the columns of `Counts`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from service.model.calls import CallKind
from service.model.pages import Source
from service.observe.outcomes import CALLS_OF_ROUTES, DECLINED, FALLBACK, PAGES, REFUSED
from service.observe.request import RequestLabels, RequestRecord

AddToColumn = Callable[[str, str, int], None]
"""Adds to a caller's column: `UsageStore.count`."""

_COLUMNS = {Source.HIT.value: "hits", Source.STALE.value: "stale", FALLBACK: "stale"} | dict.fromkeys(
    REFUSED | DECLINED, "refusals"
)


class UsageObserver:
    """An `OnRequestBatch`. Counts known callers' requests for tasks of apps that have a usage store."""

    def __init__(self, usage_stores: Mapping[tuple[str, CallKind], AddToColumn]) -> None:
        """There is one usage store for each kind of calls of each app."""
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
        kind = CALLS_OF_ROUTES.get(labels.route)
        if labels.app is None or labels.caller is None or kind is None:
            return
        count = self._usage_stores.get((labels.app, kind))
        if count is not None:
            count(labels.caller, column, number)
