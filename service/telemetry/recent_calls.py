"""The calls of the last minute and the last success of each app and kind on this replica."""

from collections import Counter
from collections.abc import Callable, Iterable
from time import time

from service.model.budgets import CallResults, RecentCalls
from service.model.calls import CallKind
from service.upstream.call_events import UpstreamCallEnd
from service.upstream.codes import CodeKind
from service.upstream.verdicts import OK

MINUTE_S = 60

BudgetKey = tuple[str, CallKind]
"""The app, and the kind of call."""


class RecentAppCalls:
    """Counts finished calls by second; an `OnUpstreamCall`. `clock` is the event loop's, `wall` that of the machine."""

    def __init__(self, apps: Iterable[str], *, clock: Callable[[], float], wall: Callable[[], float] = time) -> None:
        self._clock = clock
        self._wall = wall
        self._succeeded_at_s: dict[BudgetKey, float] = {}
        self._counts: dict[BudgetKey, Counter[tuple[int, bool]]] = {
            (name, kind): Counter() for name in apps for kind in CallKind
        }

    def __call__(self, end: UpstreamCallEnd) -> None:
        """Count one call. A query that the upstream refuses is its caller's fault and counts as a success."""
        budget, has_succeeded = (end.call.app, end.call.kind), end.result in (OK, CodeKind.CALLER_FAULT)
        if has_succeeded:
            self._succeeded_at_s[budget] = self._wall()
        self._counts[budget][int(self._clock()), has_succeeded] += 1
        if len(self._counts[budget]) > 4 * MINUTE_S:
            self._counts[budget] = self._last_minute(budget)

    def succeeded_at_s(self) -> dict[BudgetKey, float]:
        """Return when the last call succeeded, in seconds since the epoch, for each app and kind with such a call."""
        return dict(self._succeeded_at_s)

    def of(self, app: str, kind: CallKind) -> RecentCalls:
        """Return the calls of this kind in the last minute."""
        counts = Counter[bool]()
        for (_, has_succeeded), count in self._last_minute((app, kind)).items():
            counts[has_succeeded] += count
        failed = {"failed": counts[False]} if counts[False] else {}
        return RecentCalls(minute=CallResults(ok=counts[True], failed=failed))

    def _last_minute(self, budget: BudgetKey) -> Counter[tuple[int, bool]]:
        since_s = int(self._clock()) - MINUTE_S
        return Counter({key: count for key, count in self._counts[budget].items() if key[0] > since_s})
