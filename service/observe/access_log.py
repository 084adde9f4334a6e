"""One event for each request that has ended. Query strings, credentials and bodies are never among its fields."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import structlog

from service.observe.request import RequestRecord

# Of nearly every hit: numbers are dear to print.
_NO_WAITS = '"waited_ms":0.0,"upstream_ms":0.0'
_LINE = '{"timestamp":"%s.%06dZ","level":"info","event":"request","request_id":"%s",%s,%s,"duration_ms":%.2f}'

_log = structlog.get_logger()


def log_requests(seen: Sequence[RequestRecord]) -> None:
    """Log the event `request` for each, for people: a `Listener`. Times are in milliseconds."""
    for each in seen:
        _log.info(
            "request",
            request_id=each.request_id,
            **msgspec.structs.asdict(each.labels),
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
        self._encoder = msgspec.json.Encoder()

    def __call__(self, seen: Sequence[RequestRecord]) -> None:
        """Write a line for each."""
        self._write("\n".join([self._line(each) for each in seen]), len(seen))

    def _line(self, seen: RequestRecord) -> str:
        second = int(seen.ended_at_s)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
        labels = self._encoder.encode(seen.labels).decode()[1:-1]
        waits = _NO_WAITS
        if seen.waited_s or seen.upstream_s:
            waits = f'"waited_ms":{seen.waited_s * 1000:.1f},"upstream_ms":{seen.upstream_s * 1000:.1f}'
        return _LINE % (
            self._second_text,
            (seen.ended_at_s - second) * 1e6,
            seen.request_id,
            labels,
            waits,
            seen.duration_s * 1000,
        )
