"""What of a replica's report the scheduler does not know yet, so that a tick tells just that."""

from collections.abc import Iterable

import msgspec

from service.budget.scheduler.interfaces import WaitingCount

SAME_MS = 20
"""Differences of the oldest one's time of entry that are no change: two readings of a clock, and rounding."""
WHOLE_EVERY = 256
"""After so many ticks the whole report is sent, so that whatever was lost heals within about a minute."""


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Rows as they are now, with a count of 0 for those that have gone. If `whole`, there are no others.

    `number` counts what was told: of two that overtake each other the later holds. Rows that are not the whole hold
    only where the scheduler has been told `base`, the last whole, or something later.
    """

    rows: tuple[WaitingCount, ...]
    whole: bool
    number: int
    base: int


class ReportChanges:
    """One replica's side of its report. `changes`, then `answered` or `failed`, one tick after the other."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[WaitingCount, float]] = {}
        self._unsure: set[str] = set()
        self._sent: Changes | None = None
        self._sent_ms = 0.0
        self._number = self._base = self._ticks = 0

    def changes(self, waiting: tuple[WaitingCount, ...], *, now_ms: float, whole: bool = False) -> Changes:
        """Return what to tell of `waiting`, at `now_ms` of a monotonic clock; `whole` where all is asked for."""
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

    def answered(self) -> None:
        """Note that the scheduler knows what was told."""
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

    def failed(self) -> None:
        """Note that nobody knows whether the scheduler was told. Of a whole report it says so itself, by its `base`."""
        if self._sent is None:
            return
        if self._sent.whole:
            self.answered()
        else:
            self.uncertain(row.caller for row in self._sent.rows)
            self._sent = None

    def uncertain(self, callers: Iterable[str]) -> None:
        """Tell these callers' rows with the next tick: the scheduler may have changed them itself."""
        self._unsure.update(callers)

    def _has_changed(self, row: WaitingCount, now_ms: float) -> bool:
        known = self._known.get(row.caller)
        if known is None or row.caller in self._unsure:
            return True
        before, entered_ms = known
        is_same = (before.weight, before.count, before.background) == (row.weight, row.count, row.background)
        return not is_same or abs(now_ms - row.waited_ms - entered_ms) > SAME_MS
