"""One event for each request that has ended. Query strings, credentials and bodies are never among its fields."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import structlog

from service.web.trail import Observation

GATHERED_S = 0.05
GATHERED_MAX = 256

_log = structlog.get_logger()
_encoder = msgspec.json.Encoder()


class _Line(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The event as JSON, in the order and with the names of every other event."""

    timestamp: str
    level: str = "info"
    event: str = "request"
    request_id: str
    method: str
    route: str
    status: int
    caller: str | None
    app: str | None
    outcome: str | None
    waited_ms: float
    upstream_ms: float
    duration_ms: float


def log_request(observation: Observation) -> None:
    """Log the event `request`; times in milliseconds."""
    _log.info(
        "request",
        request_id=observation.request_id,
        method=observation.method,
        route=observation.route,
        status=observation.status,
        caller=observation.caller,
        app=observation.app,
        outcome=observation.outcome,
        waited_ms=round(observation.waited_s * 1000, 1),
        upstream_ms=round(observation.upstream_s * 1000, 1),
        duration_ms=round(observation.duration_s * 1000, 2),
    )


class AccessLog:
    """The same event as JSON lines at a twentieth of the price: gathered for `GATHERED_S`, then written together.

    Its fields are of closed sets, numbers, names from the settings and a request id of harmless letters, so there is
    nothing to mask or to bound.
    """

    def __init__(self, write: Callable[[str, int], None], *, clock: Callable[[], float] = time.time) -> None:
        """`write` takes whole lines and how many they are; `clock` tells seconds since the epoch."""
        self._write = write
        self._clock = clock
        self._gathered: list[tuple[float, Observation]] = []
        self._second = -1
        self._second_text = ""

    def __call__(self, observation: Observation) -> None:
        """Gather one."""
        gathered = self._gathered
        gathered.append((self._clock(), observation))
        if len(gathered) == 1:
            asyncio.get_running_loop().call_later(GATHERED_S, self.flush)
        elif len(gathered) >= GATHERED_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what has been gathered."""
        if self._gathered:
            lines = [self._line(at_s, observation) for at_s, observation in self._gathered]
            self._gathered = []
            self._write(b"\n".join(lines).decode(), len(lines))

    def _line(self, at_s: float, observation: Observation) -> bytes:
        second = int(at_s)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return _encoder.encode(
            _Line(
                timestamp=f"{self._second_text}.{int((at_s - second) * 1e6):06d}Z",
                request_id=observation.request_id,
                method=observation.method,
                route=observation.route,
                status=observation.status,
                caller=observation.caller,
                app=observation.app,
                outcome=observation.outcome,
                waited_ms=round(observation.waited_s * 1000, 1),
                upstream_ms=round(observation.upstream_s * 1000, 1),
                duration_ms=round(observation.duration_s * 1000, 2),
            )
        )
