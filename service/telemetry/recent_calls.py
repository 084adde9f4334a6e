"""The calls of the last minute and the last success of each app, as this replica has seen them."""

from collections import Counter
from collections.abc import Callable, Iterable
from time import time

from service.gateway.call_events import CallEnd
from service.model.budgets import CallResults, RecentCalls
from service.upstream.codes import CodeKind
from service.upstream.results import OK

MINUTE_S = 60


class RecentAppCalls:
    """Counts finished calls by second; an `OnCall`. `clock` is the event loop's, `wall` that of the machine."""

    def __init__(self, apps: Iterable[str], *, clock: Callable[[], float], wall: Callable[[], float] = time) -> None:
        self._clock = clock
        self._wall = wall
        self._succeeded_at_s: dict[str, float] = {}
        self._counts: dict[str, Counter[tuple[int, bool]]] = {name: Counter() for name in apps}

    def __call__(self, end: CallEnd) -> None:
        """Count one call. A query that the upstream refuses is its caller's fault: the app answers."""
        name, has_succeeded = end.call.app, end.result in (OK, CodeKind.CALLER_FAULT)
        if has_succeeded:
            self._succeeded_at_s[name] = self._wall()
        self._counts[name][int(self._clock()), has_succeeded] += 1
        if len(self._counts[name]) > 4 * MINUTE_S:
            self._counts[name] = self._last_minute(name)

    def succeeded_at_s(self) -> dict[str, float]:
        """Return when the last call succeeded, in seconds since the epoch, for each app with such a call."""
        return dict(self._succeeded_at_s)

    def of(self, app: str) -> RecentCalls:
        """Return the calls of the last minute."""
        counts = Counter[bool]()
        for (_, has_succeeded), count in self._last_minute(app).items():
            counts[has_succeeded] += count
        failed = {"failed": counts[False]} if counts[False] else {}
        return RecentCalls(minute=CallResults(ok=counts[True], failed=failed))

    def _last_minute(self, app: str) -> Counter[tuple[int, bool]]:
        since_s = int(self._clock()) - MINUTE_S
        return Counter({key: count for key, count in self._counts[app].items() if key[0] > since_s})
