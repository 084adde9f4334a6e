"""The requests of `taskgate tasks` to a gateway, over HTTP/1.1 with only the standard library."""

import http.client
from collections.abc import Iterator
from typing import Self
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import msgspec

from service.model.errors import Fault

LINE_MAX_BYTES = 8 * 1024 * 1024
"""The longest line that is read: an upstream's whole answer may be that large."""
PROBLEM_MAX_BYTES = 64 * 1024
ANSWER_MAX_S = 120.0
"""How long the gateway may be silent if the caller sets no patience."""
BUDGET_MAX_S = 2.0

_NDJSON = "application/x-ndjson"
_EVENT_STREAM = "text/event-stream"
_CALLER_FAULTS = frozenset((400, 401, 403, 404, 406, 414, 422, 431))


class GatewayFailed(Exception):
    """The gateway can't be reached, or its answer can't be used."""


class GatewayRefused(Exception):
    """The request can't be served: a parameter, the address or the key is invalid."""


class TasksRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request for tasks; None for parameters not given. `wait_s` is the patience for each block, in seconds."""

    url: str
    app: str | None = None
    since: str | None = None
    until: str | None = None
    sort: str | None = None
    q: str | None = None
    status: str | None = None
    type: str | None = None
    offset: int = 0
    wait_s: int | None = None

    @property
    def is_filtered(self) -> bool:
        """Whether a filter leaves tasks out."""
        return self.status is not None or self.type is not None

    @property
    def query_string(self) -> str:
        """Return the encoded parameters."""
        names = ("app", "since", "until", "sort", "q", "status", "type")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return urlencode(given | ({"offset": self.offset} if self.offset else {}), quote_via=quote)


class ReceivedProblem(msgspec.Struct, frozen=True, kw_only=True):
    """The members used of a problem (RFC 9457)."""

    title: str = "The gateway refused"
    detail: str = ""
    request_id: str = ""
    errors: tuple[Fault, ...] = ()
    estimate_seconds: float | None = None

    @property
    def text(self) -> str:
        """The problem as a readable text."""
        lines = [self.title + (f": {self.detail}" if self.detail else "")]
        lines += [f"{fault.parameter} {fault.detail}" for fault in self.errors]
        if self.estimate_seconds is not None:
            lines.append(f"the turn is expected in about {self.estimate_seconds:.0f} s; --wait says how long to wait")
        if self.request_id:
            lines.append(f"request {self.request_id}")
        return "\n  ".join(lines)


class ReceivedEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The members used of a stream's last line."""

    complete: bool
    count: int
    changed: bool = False
    missing: int = 0
    stale: bool = False
    fetched_at: str = ""
    problem: ReceivedProblem | None = None
    next: str | None = None

    @property
    def offset(self) -> int | None:
        """The offset of the rest."""
        texts = parse_qs(urlsplit(self.next or "").query).get("offset", [""])
        return int(texts[0]) if texts[0].isdecimal() else None


class ReceivedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A task with the members to display, or with `end` the last line."""

    id: int = 0
    status: str | None = ""
    type: str | None = ""
    scheduled_at: str | None = None
    title: str | None = ""
    end: ReceivedEnd | None = None


class ReceivedWaiting(msgspec.Struct, frozen=True, kw_only=True):
    """How many blocks of a caller are waiting."""

    count: int = 0


class ReceivedShare(msgspec.Struct, frozen=True, kw_only=True):
    """The members used of a caller's share of the budget."""

    waiting: ReceivedWaiting = ReceivedWaiting()


class ReceivedSlots(msgspec.Struct, frozen=True, kw_only=True):
    """The members used of the slots."""

    total: int
    window_seconds: float
    free: int | None = None


class ReceivedPause(msgspec.Struct, frozen=True, kw_only=True):
    """The members used of a pause."""

    seconds: float = 0.0


class ReceivedBudget(msgspec.Struct, frozen=True, kw_only=True):
    """The members used of an app's budget."""

    slots: ReceivedSlots
    pause: ReceivedPause | None = None
    callers: tuple[ReceivedShare, ...] = ()
    others: ReceivedShare = ReceivedShare()

    @property
    def wait_s(self) -> float:
        """Return about how long the last block in line waits for a turn, in seconds."""
        pause_s = 0.0 if self.pause is None else self.pause.seconds
        waiting = self.others.waiting.count + sum(share.waiting.count for share in self.callers)
        if not waiting and self.slots.free:
            return pause_s
        return pause_s + (waiting + 1) * self.slots.window_seconds / self.slots.total


_lines = msgspec.json.Decoder(ReceivedLine)


class ReceivedStream:
    """A stream that has begun. `total` is how many tasks match, if the gateway says so; `end` is how it ended."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        total = response.headers.get("X-Total-Count", "")
        self.total = int(total) if total.isdecimal() else None
        self.end: ReceivedEnd | None = None
        self._response = response

    def lines(self) -> Iterator[tuple[str, ReceivedLine]]:
        """Yield the tasks, each with its text, until the stream ends or is cut off. Raise GatewayFailed."""
        try:
            while text := self._response.readline(LINE_MAX_BYTES):
                if not text.endswith(b"\n"):
                    return
                line = _lines.decode(text)
                if line.end is not None:
                    self.end = line.end
                    return
                yield text.decode().strip(), line
        except (http.client.HTTPException, OSError):
            return  # cut off: its last line is missing
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise GatewayFailed(f"the answer can't be read: {exc}") from exc


class GatewayConnection:
    """A connection to a gateway. Raises GatewayRefused if the address or the key can't be valid."""

    def __init__(self, request: TasksRequest, *, key: str) -> None:
        try:
            url = urlsplit(request.url)
            port = url.port
        except ValueError as exc:
            raise GatewayRefused(f"--url is not an address: {exc}") from exc
        if url.scheme not in ("http", "https") or not url.hostname:
            raise GatewayRefused("--url must be of the form http://HOST:PORT")
        if not key.isascii() or not key.isprintable():
            raise GatewayRefused("a key consists of ASCII letters, digits and punctuation")
        self._kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = url.hostname, port, url.path.rstrip("/")
        self._request = request
        self._fields = {"Authorization": f"Bearer {key}", "User-Agent": "taskgate-tasks"}
        self._connections: list[http.client.HTTPConnection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def estimate_s(self) -> float | None:
        """Return about how long the first turn may take, in seconds; None if the gateway does not say."""
        app = self._request.app
        target = "/budget" + (f"?{urlencode({'app': app})}" if app else "")
        try:
            response = self._get(target, {}, timeout_s=BUDGET_MAX_S)
            return msgspec.json.decode(response.read(PROBLEM_MAX_BYTES), type=ReceivedBudget).wait_s
        except (GatewayFailed, msgspec.DecodeError, http.client.HTTPException, OSError, ZeroDivisionError):
            return None

    def stream(self) -> ReceivedStream:
        """Send the request. Raise GatewayFailed or GatewayRefused."""
        wait_s = self._request.wait_s
        return ReceivedStream(self._tasks(_NDJSON, {}, timeout_s=ANSWER_MAX_S if wait_s is None else wait_s + 60.0))

    def watch(self, last_id: str) -> Iterator[bytes]:
        """Yield the lines of an event stream until it ends. Raise GatewayFailed or GatewayRefused."""
        response = self._tasks(_EVENT_STREAM, {"Last-Event-ID": last_id} if last_id else {}, timeout_s=ANSWER_MAX_S)
        try:
            while line := response.readline(LINE_MAX_BYTES):
                yield line
        except (http.client.HTTPException, OSError) as exc:
            raise GatewayFailed(f"the connection was lost: {exc or type(exc).__name__}") from exc

    def _tasks(self, accept: str, fields: dict[str, str], *, timeout_s: float) -> http.client.HTTPResponse:
        """Return the response in this media type. Raise GatewayFailed or GatewayRefused if there is none."""
        patience = {} if self._request.wait_s is None else {"Prefer": f"wait={self._request.wait_s}"}
        target = f"/tasks?{self._request.query_string}"
        response = self._get(target, {"Accept": accept} | patience | fields, timeout_s=timeout_s)
        media_type = response.headers.get_content_type()
        if response.status == 200 and media_type == accept:
            return response
        if media_type != "application/problem+json":
            raise GatewayFailed(
                f"the server at {self._host} is not a gateway that streams (HTTP status {response.status})"
            )
        try:
            text = msgspec.json.decode(response.read(PROBLEM_MAX_BYTES), type=ReceivedProblem).text
        except (msgspec.DecodeError, http.client.HTTPException, OSError):
            text = f"HTTP status {response.status}"
        raise GatewayRefused(text) if response.status in _CALLER_FAULTS else GatewayFailed(text)

    def _get(self, target: str, fields: dict[str, str], *, timeout_s: float) -> http.client.HTTPResponse:
        connection = self._kind(self._host, self._port, timeout=timeout_s)
        self._connections.append(connection)
        try:
            connection.request("GET", self._path + target, headers=self._fields | fields)
            return connection.getresponse()
        except TimeoutError as exc:
            raise GatewayFailed(f"no answer from {self._host} within {timeout_s:.0f} s") from exc
        except (OSError, http.client.HTTPException) as exc:
            raise GatewayFailed(f"can't reach {self._host}: {exc or type(exc).__name__}") from exc
