"""Tells of requests that have ended a moment later, many at a time: cheaper for each, and out of its answer's way."""

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock

from service.observe.request import RequestRecord

GATHERED_S = 0.05
GATHERED_MAX = 64
"""Few enough that to tell of them all holds up no other request for a millisecond."""

Listener = Callable[[Sequence[RequestRecord]], None]
"""Told of requests in the order in which they ended; must neither block nor raise."""


class BatchedObservers:
    """An `Observer` that holds what it is told for `GATHERED_S`, or until it is `GATHERED_MAX`; then it tells all.

    Any thread may tell it; the listeners are told in the event loop that it was started in, and at once where it runs
    in none.
    """

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._seen: list[RequestRecord] = []
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to hold what is told."""
        self._loop = asyncio.get_running_loop()

    def __call__(self, seen: RequestRecord) -> None:
        """Hold one."""
        with self._lock:
            self._seen.append(seen)
            count = len(self._seen)
        loop = self._loop
        if loop is None:
            self.flush()
        elif count == 1:
            loop.call_soon_threadsafe(loop.call_later, GATHERED_S, self.flush)
        elif count == GATHERED_MAX:
            loop.call_soon_threadsafe(self.flush)

    def flush(self) -> None:
        """Tell of what is held."""
        with self._lock:
            seen, self._seen = self._seen, []
        if seen:
            for tell in self._listeners:
                tell(seen)

    def close(self) -> None:
        """Hold nothing any more: from now on each is told of at once."""
        self._loop = None
        self.flush()
