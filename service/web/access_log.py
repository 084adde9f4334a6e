"""One event for each request that has ended. Query strings, credentials and bodies are never among its fields."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import structlog

from service.web.trail import Observation

SHARED_MAX = 1000
"""Of how many kinds of requests the fields that they have in common are remembered."""

_NO_WAITS = '"waited_ms":0.0,"upstream_ms":0.0'  # of every hit: numbers are dear to print

_log = structlog.get_logger()

_Shared = tuple[str, str, int, str | None, str | None, str | None]


def log_requests(seen: Sequence[Observation]) -> None:
    """Log the event `request` for each, for people: a `Listener`. Times are in milliseconds."""
    for each in seen:
        _log.info(
            "request",
            request_id=each.request_id,
            method=each.method,
            route=each.route,
            status=each.status,
            caller=each.caller,
            app=each.app,
            outcome=each.outcome,
            waited_ms=round(each.waited_s * 1000, 1),
            upstream_ms=round(each.upstream_s * 1000, 1),
            duration_ms=round(each.duration_s * 1000, 2),
        )


class AccessLog:
    """The same event as JSON lines at a fortieth of the price: a `Listener`, which writes those of many together.

    Its fields are of closed sets, numbers, names from the settings and a request id of harmless letters, so there is
    nothing to mask or to bound.
    """

    def __init__(self, write: Callable[[str, int], None]) -> None:
        """`write` takes whole lines and how many they are."""
        self._write = write
        self._second = -1
        self._second_text = ""
        self._shared: dict[_Shared, str] = {}

    def __call__(self, seen: Sequence[Observation]) -> None:
        """Write a line for each."""
        self._write("\n".join([self._line(each) for each in seen]), len(seen))

    def _line(self, seen: Observation) -> str:
        second = int(seen.ended_at_s)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
        key = (seen.method, seen.route, seen.status, seen.caller, seen.app, seen.outcome)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._share(key)
        waits = _NO_WAITS
        if seen.waited_s or seen.upstream_s:
            waits = f'"waited_ms":{seen.waited_s * 1000:.1f},"upstream_ms":{seen.upstream_s * 1000:.1f}'
        return (
            f'{{"timestamp":"{self._second_text}.{int((seen.ended_at_s - second) * 1e6):06d}Z",'
            f'"level":"info","event":"request","request_id":"{seen.request_id}",{shared}{waits},'
            f'"duration_ms":{seen.duration_s * 1000:.2f}}}'
        )

    def _share(self, key: _Shared) -> str:
        """The fields that most lines have in common, as JSON with a comma behind."""
        if len(self._shared) >= SHARED_MAX:  # callers and apps come and go with reloads
            self._shared.clear()
        fields = dict(zip(("method", "route", "status", "caller", "app", "outcome"), key, strict=True))
        self._shared[key] = shared = msgspec.json.encode(fields).decode()[1:-1] + ","
        return shared
