"""Arrivals: when calls arrived, whether they exceeded the limit, and how many fell into the worst window."""

from collections import deque

from service.model.budgets import worst_window

KEPT = 100_000


class Arrivals:
    """One app's arrivals. Every call counts, including refused ones: the upstream had to handle them."""

    def __init__(self, *, calls: int, window_ms: float) -> None:
        self.count = 0
        self.refused = 0
        self._calls = calls
        self._window_ms = window_ms
        self._recent: deque[float] = deque(maxlen=calls)
        self._kept: deque[float] = deque(maxlen=KEPT)

    @property
    def kept_ms(self) -> tuple[float, ...]:
        """The last arrivals, up to 100,000, in milliseconds of the monotonic clock."""
        return tuple(self._kept)

    def arrive(self, at_ms: float) -> bool:
        """Count one arrival; return whether it keeps the limit: at most `calls` in the window that ends with it."""
        full = len(self._recent) == self._calls
        allowed = not (full and at_ms - self._recent[0] < self._window_ms)
        self._recent.append(at_ms)
        self._kept.append(at_ms)
        self.count += 1
        self.refused += not allowed
        return allowed

    def worst(self, window_ms: float | None = None) -> int:
        """Return the largest number of kept arrivals in any window, by default of the limit's length."""
        return worst_window(self._kept, self._window_ms if window_ms is None else window_ms)
