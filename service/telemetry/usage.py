"""Counts who asks for pages and what became of it, for the ledgers, under the columns of `Counts`."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from service.model.pages import Source
from service.web.problems import REFUSALS
from service.web.routes.tasks import PATH
from service.web.trail import Observation

Count = Callable[[str, str, int], None]
"""Adds to a caller's column: `Ledger.count`."""

_COLUMNS = {Source.HIT.value: "hits", Source.STALE.value: "stale"} | dict.fromkeys(REFUSALS, "refusals")


class UsageCounts:
    """A `Listener`. Counts requests of known callers for pages of apps that have a ledger; others it leaves."""

    def __init__(self, ledgers: Mapping[str, Count]) -> None:
        self._ledgers = ledgers

    def __call__(self, seen: Sequence[Observation]) -> None:
        """Enter them, each sum once."""
        ended = Counter((each.caller, each.app, each.outcome, each.waited_s > 0) for each in seen if each.route == PATH)
        for (caller, app, outcome, has_waited), number in ended.items():
            count = self._ledgers.get(app or "")
            if caller is None or count is None:
                continue
            count(caller, "requests", number)
            if outcome in _COLUMNS:
                count(caller, _COLUMNS[outcome], number)
            if has_waited:
                count(caller, "waits", number)
