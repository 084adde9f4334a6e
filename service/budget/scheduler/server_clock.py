"""A replica's lower bound on the Redis server's time, based on its own clock, and the random numbers for the script."""

import math
import random
import time


def monotonic_ms() -> float:
    """Return this machine's monotonic clock, in milliseconds."""
    return time.monotonic() * 1000


def any_chance() -> int:
    """Return a random number that two replicas are unlikely to share: 1 to 2**31."""
    return random.SystemRandom().randint(1, 2**31)


class ServerClock:
    """Derives the script's time from our monotonic clock; never ahead of the script's own.

    An answer was made before it arrived, so `script - arrived` is at most the difference between the two clocks; the
    largest such value is the best known. It is valid for one span of an epoch: until Redis loses its state, or its
    clock steps or may have stepped unnoticed.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._ahead_ms = 0.0

    def read(self, now_ms: float) -> tuple[int, int]:
        """Return the epoch (0: none known) and the latest script time that has surely come, in milliseconds."""
        return self._epoch, math.floor(self._ahead_ms + now_ms) - 1 if self._epoch else 0

    def answered(self, epoch: int, script_ms: int, now_ms: float) -> None:
        """Learn from an answer that arrived at `now_ms`."""
        ahead_ms = script_ms - now_ms
        if epoch != self._epoch or ahead_ms > self._ahead_ms:
            self._epoch, self._ahead_ms = epoch, ahead_ms
