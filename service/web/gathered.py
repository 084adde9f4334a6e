"""Tells of requests that have ended a moment later, many at a time: cheaper for each, and out of its answer's way."""

import asyncio
from collections.abc import Callable, Sequence

from service.web.trail import Observation

GATHERED_S = 0.05
GATHERED_MAX = 64
"""Few enough that to tell of them all holds up no other request for a millisecond."""

Listener = Callable[[Sequence[Observation]], None]
"""Told of requests in the order in which they ended; must neither block nor raise."""


class Gathered:
    """An `Observer` that holds what it is told for `GATHERED_S`, or until it is `GATHERED_MAX`; then it tells all."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._seen: list[Observation] = []
        self._closed = False

    def __call__(self, seen: Observation) -> None:
        """Hold one."""
        self._seen.append(seen)
        count = len(self._seen)
        if count >= GATHERED_MAX or self._closed:
            self.flush()
        elif count == 1:
            asyncio.get_running_loop().call_later(GATHERED_S, self.flush)

    def flush(self) -> None:
        """Tell of what is held."""
        if self._seen:
            seen, self._seen = self._seen, []
            for tell in self._listeners:
                tell(seen)

    def close(self) -> None:
        """Hold nothing any more: from now on each is told of at once."""
        self._closed = True
        self.flush()
