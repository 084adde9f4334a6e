"""Requests in flight by caller, bounded so that excess requests are rejected before they cost anything."""

from types import TracebackType

from service.model.callers import Caller
from service.model.errors import LineFull

RETRY_S = 1.0


class InFlight:
    """Counts requests in flight by caller. Callers without requests take no memory."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def track(self, caller: Caller) -> "_TrackedRequest":
        """Return a context that counts one request. Entering raises LineFull if the caller is at its bound."""
        return _TrackedRequest(self._counts, caller)


class _TrackedRequest:
    __slots__ = ("_caller", "_counts")

    def __init__(self, counts: dict[str, int], caller: Caller) -> None:
        self._counts = counts
        self._caller = caller

    def __enter__(self) -> None:
        caller = self._caller
        count = self._counts.get(caller.name, 0)
        if count >= caller.waiting_max:
            raise LineFull(bound=caller.waiting_max, retry_after_s=RETRY_S)
        self._counts[caller.name] = count + 1

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        name = self._caller.name
        left = self._counts[name] - 1
        if left:
            self._counts[name] = left
        else:
            del self._counts[name]
