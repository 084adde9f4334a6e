"""Counts who asks for pages and what became of it, for the ledgers. On every request's way, hot hits too: one addition.

What has come together is entered in the ledgers a few times a second, under the columns of `Counts`.
"""

import asyncio
from collections.abc import Callable, Mapping

from service.model.pages import Source
from service.web.problems import REFUSALS
from service.web.routes.tasks import PATH
from service.web.trail import Observation

ENTER_S = 0.25
"""How long a request may have ended before it is in its ledger; the ledger itself sends once a second."""

Count = Callable[[str, str, int], None]
"""Adds to a caller's column: `Ledger.count`."""

_COLUMNS = {Source.HIT.value: "hits", Source.STALE.value: "stale"} | dict.fromkeys(REFUSALS, "refusals")
_Key = tuple[str | None, str | None, str | None, bool]


class UsageCounts:
    """An `Observer`. Counts requests for pages of the apps that have a ledger; others, and unknown callers, it leaves.

    Until they are entered it holds one number for each caller, app and outcome that there was.
    """

    def __init__(self, ledgers: Mapping[str, Count]) -> None:
        self._ledgers = ledgers
        self._ended: dict[_Key, int] = {}
        self._entering: asyncio.TimerHandle | None = None

    def __call__(self, seen: Observation) -> None:
        """Count one."""
        if seen.route != PATH:
            return
        key = (seen.caller, seen.app, seen.outcome, seen.waited_s > 0)
        ended = self._ended
        if key in ended:
            ended[key] += 1
        else:
            ended[key] = 1
            if self._entering is None:
                self._entering = asyncio.get_running_loop().call_later(ENTER_S, self.enter)

    def enter(self) -> None:
        """Enter what has come together."""
        if self._entering is not None:
            self._entering.cancel()
            self._entering = None
        ended, self._ended = self._ended, {}
        for (caller, app, outcome, has_waited), number in ended.items():
            count = self._ledgers.get(app or "")
            if caller is None or count is None:
                continue
            count(caller, "requests", number)
            if outcome in _COLUMNS:
                count(caller, _COLUMNS[outcome], number)
            if has_waited:
                count(caller, "waits", number)

    def close(self) -> None:
        """Enter the last, before the ledgers close."""
        self.enter()
