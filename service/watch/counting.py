"""Counts what a watch was sent and how long it is open, for metrics and for its caller's usage."""

from collections import Counter
from collections.abc import Callable, Sequence

CountUsage = Callable[[str, int], None]
"""Adds to a column of `Counts` of one caller."""


class WatchCounter:
    """Counts one watch. Call `sent` at least every few seconds, so that its time counts in the right minute."""

    def __init__(self, events: Counter[str], usage: CountUsage, *, now_s: Callable[[], float]) -> None:
        """`events` counts the events of all watches by name; `now_s` returns the seconds of a monotonic clock."""
        self._events = events
        self._usage = usage
        self._now_s = now_s
        self._counted_until_s = now_s()
        usage("watches", 1)

    def sent(self, names: Sequence[str]) -> None:
        """Count the events that are sent now, none if only the time has passed."""
        if names:
            self._events.update(names)
            self._usage("events", len(names))
            if resets := names.count("reset"):
                self._usage("resets", resets)
        if (whole_s := int(self._now_s() - self._counted_until_s)) > 0:
            self._counted_until_s += whole_s
            self._usage("watched_s", whole_s)
