"""A replica's own measure of how much time has passed since Redis last told the time, and what feeds it."""

import math
import random
import time


def monotonic_ms() -> float:
    """This machine's monotonic clock, in milliseconds."""
    return time.monotonic() * 1000


def any_chance() -> int:
    """A random number that two replicas will not share: 1 to 2**31."""
    return random.SystemRandom().randint(1, 2**31)


class ServerClock:
    """Tells the script's time from a monotonic clock of our own, never too late a time.

    An answer was made before it arrived, so `told - arrived` is at most what the two clocks differ by; the largest
    such difference is the best known. It holds for a span of an epoch: until Redis loses its state, or its clock steps,
    or may have done so unnoticed.
    """

    def __init__(self) -> None:
        self._epoch = 0
        self._ahead_ms = 0.0

    def read(self, now_ms: float) -> tuple[int, int]:
        """The epoch (0: none known) and the script's time that has surely come, in milliseconds."""
        return self._epoch, math.floor(self._ahead_ms + now_ms) - 1 if self._epoch else 0

    def answered(self, epoch: int, told_ms: int, now_ms: float) -> None:
        """Learn from an answer that has arrived at `now_ms`."""
        ahead_ms = told_ms - now_ms
        if epoch != self._epoch or ahead_ms > self._ahead_ms:
            self._epoch, self._ahead_ms = epoch, ahead_ms
