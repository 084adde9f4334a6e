"""Calls within a window, counted by another way than the sandbox's."""

from bisect import bisect_left
from collections.abc import Iterable


def most_in_window(times: Iterable[float], window: float) -> int:
    """Return the largest number of times in any half-open window; all in one unit."""
    ordered = sorted(times)
    return max(bisect_left(ordered, first + window) - index for index, first in enumerate(ordered))
