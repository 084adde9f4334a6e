"""The changes in a replica's report, so that a tick sends only what the scheduler does not know yet."""

from collections.abc import Iterable

import msgspec

from service.budget.scheduler.interfaces import WaitingCount
from service.budget.scheduler.policy.state import SAME_MS

WHOLE_EVERY = 256
"""Every how many ticks to send the whole report, so that any loss is repaired within about a minute."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """The current rows, with a count of 0 for removed ones. If `whole`, there are no others.

    `number` counts the reports sent: if one overtakes another, the later one holds. Rows that are not the whole are
    valid only if the scheduler has received `base`, the last whole report, or a later one.
    """

    rows: tuple[WaitingCount, ...]
    whole: bool
    number: int
    base: int


class ReportChanges:
    """One replica's side of its report. Call `changes`, then `answered` or `failed`, for one tick after the other."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[WaitingCount, float]] = {}
        self._unsure: set[str] = set()
        self._sent: Changes | None = None
        self._sent_ms = 0.0
        self._number = self._base = self._ticks = 0

    def changes(self, waiting: tuple[WaitingCount, ...], *, now_ms: float, whole: bool = False) -> Changes:
        """Return what to send for `waiting`, at `now_ms` of a monotonic clock; `whole` if the entire report is
        requested."""
        self._number += 1
        self._ticks += not whole
        present = {row.caller: row for row in waiting if row.count}
        if whole or not self._known or self._ticks % WHOLE_EVERY == 0:
            rows, whole = tuple(present.values()), True
            self._base = self._number
        else:
            changed = [row for row in present.values() if self._has_changed(row, now_ms)]
            gone = [caller for caller in {**self._known, **dict.fromkeys(self._unsure)} if caller not in present]
            rows = (*changed, *(WaitingCount(caller=each, weight=1.0, count=0, waited_ms=0) for each in gone))
        self._unsure = set()
        self._sent, self._sent_ms = Changes(rows=rows, whole=whole, number=self._number, base=self._base), now_ms
        return self._sent

    def answered(self, *, taken: str | None = None) -> None:
        """Record that the scheduler has received the last changes, and has taken one off the row of caller `taken`.

        It forgets a report without any rows left.
        """
        if self._sent is None:
            return
        if self._sent.whole:
            self._known = {}
        for row in self._sent.rows:
            if row.count:
                self._known[row.caller] = (row, self._sent_ms - row.waited_ms)
            else:
                self._known.pop(row.caller, None)
        self._sent = None
        if taken is not None:
            self.uncertain((taken,))
            if sum(row.count for row, _ in self._known.values()) <= 1:
                self._known = {}

    def failed(self) -> None:
        """Record that the last changes may be lost. For a whole report no resend is needed: `base` shows whether it
        arrived."""
        if self._sent is None:
            return
        if self._sent.whole:
            self.answered()
        else:
            self.uncertain(row.caller for row in self._sent.rows)
            self._sent = None

    def uncertain(self, callers: Iterable[str]) -> None:
        """Send these callers' rows with the next tick: the scheduler may have changed them itself."""
        self._unsure.update(callers)

    def _has_changed(self, row: WaitingCount, now_ms: float) -> bool:
        known = self._known.get(row.caller)
        if known is None or row.caller in self._unsure:
            return True
        before, entered_ms = known
        is_same = (before.weight, before.count, before.background) == (row.weight, row.count, row.background)
        return not is_same or abs(now_ms - row.waited_ms - entered_ms) > SAME_MS
