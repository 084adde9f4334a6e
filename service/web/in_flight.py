"""Requests in flight by caller, bounded so that excess requests are rejected before they cost anything."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.model.callers import Caller
from service.model.errors import LineFull

RETRY_S = 1.0


class InFlight:
    """Counts requests in flight by caller. Callers without requests take no memory."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    @contextmanager
    def track(self, caller: Caller) -> Iterator[None]:
        """Count one request within the context. Entering raises LineFull if the caller is at its bound."""
        count = self._counts.get(caller.name, 0)
        if count >= caller.waiting_max:
            raise LineFull(bound=caller.waiting_max, retry_after_s=RETRY_S)
        self._counts[caller.name] = count + 1
        try:
            yield
        finally:
            left = self._counts[caller.name] - 1
            if left:
                self._counts[caller.name] = left
            else:
                del self._counts[caller.name]
