"""A replica's lower bound on the Redis server's time, based on its own clock, and the random numbers for the script."""

import math
import random
import time
from collections import deque

import msgspec

RECENT_MAX = 32
"""How many of the latest answers to derive the round-trip time from."""


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
        self._recent: deque[_Answer] = deque(maxlen=RECENT_MAX)

    def read(self, now_ms: float) -> tuple[int, int]:
        """Return the epoch (0: none known) and the latest script time that has certainly passed, in milliseconds."""
        return self._epoch, math.floor(self._ahead_ms + now_ms) - 1 if self._epoch else 0

    def answered(self, epoch: int, script_ms: int, *, sent_ms: float, now_ms: float) -> None:
        """Learn from an answer that arrived at `now_ms`, to a call sent at `sent_ms`."""
        ahead_ms = script_ms - now_ms
        if epoch != self._epoch:
            self._recent.clear()
        if epoch != self._epoch or ahead_ms > self._ahead_ms:
            self._epoch, self._ahead_ms = epoch, ahead_ms
        self._recent.append(_Answer(script_ms=script_ms, ahead_ms=ahead_ms, took_ms=now_ms - sent_ms))

    def wait_ms(self, in_ms: int, *, since_ms: int, within_ms: int, now_ms: float) -> int:
        """Return how long to wait until the script's time has certainly reached `in_ms` after `since_ms`.

        At most `in_ms`, if the answer of `since_ms` has arrived; less if others had a shorter way. Of these, those of
        the last `within_ms` before the end count: if that is when a slot's rest ends, they are from within the rest,
        and what the server's clock has lost before it can't shorten it.
        """
        ends_ms = since_ms + in_ms
        known_ms = [answer.ahead_ms for answer in self._recent if answer.script_ms > ends_ms - within_ms]
        if not known_ms:
            return in_ms
        return min(max(math.ceil(ends_ms - max(known_ms) - now_ms), 0), in_ms)

    @property
    def round_trip_ms(self) -> float:
        """Return the longest time that one of the latest calls has taken; 0 before the first."""
        return max((answer.took_ms for answer in self._recent), default=0.0)


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The script's time when it answered, how far that was ahead of our clock on arrival, and how long it took."""

    script_ms: int
    ahead_ms: float
    took_ms: float
