"""Finished answers, sent again to whoever asks the same again: the hot path, before anything is parsed.

An HTTP cache (RFC 9111) in front of the edge, which knows of an answer only what its own fields say: how old it is and
for how long it is fresh. It serves no answer a moment longer than that or than the credential is good that it was given
to, and tells the observers of each request as the edge would. What is kept can be had from any thread, so that a server
need not wait for the event loop's turn.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from threading import Lock
from typing import Any

from service.model.callers import Authenticated
from service.model.pages import Source
from service.observe.request import Fields, Observer, RequestLabels, RequestRecord, labels_of
from service.web.answers import Header
from service.web.headers.ratelimit import STATE
from service.web.middleware import FIELDS_MAX_BYTES, UNROUTED, AsgiApp, request_id_of

# Request fields that say what must not be answered from here, but by the rest of the service.
_STEERING = frozenset((b"cache-control", b"pragma", b"content-length", b"transfer-encoding"))
_OF_THE_MOMENT = frozenset((b"age", b"cache-status", b"server-timing", STATE.lower().encode(), b"x-request-id"))
_MAX_AGE = re.compile(rb"(?:^|[ ,])max-age=([0-9]{1,9})(?:$|[ ,])")
# What an entry costs besides its body, fields and key: measured with tracemalloc.
_ENTRY_BYTES = 1850

Key = tuple[str, bytes, bytes | None, bytes | None, bytes | None, bytes | None, bytes | None]
"""Path, query string, credential, and the fields that choose among the answers to these."""

STEP_BACK_S = 1.0
"""A clock that is so much before the fetch of an answer has stepped back, and the answer's age is not known."""

Messages = tuple[dict[str, Any], dict[str, Any]]
"""The two messages of ASGI that are an answer: its start and its body."""

Recognise = Callable[[bytes | None], Authenticated | None]
"""Tells whose credential an `Authorization` field carries, and until when, where that is known already."""


class _Finished:
    """An answer with its fields as they are at `age_s`. It is fresh until `ends_at_s` by the shared clock."""

    __slots__ = (
        "age_s",
        "body",
        "body_message",
        "ends_at_s",
        "fetched_at_s",
        "headers",
        "labels",
        "lifetime_s",
        "stable_headers",
        "status",
    )

    def __init__(
        self, status: int, headers: Iterable[Header], body: bytes, *, age_s: int, lifetime_s: int, labels: RequestLabels
    ) -> None:
        self.status = status
        self.body = body
        self.body_message = {"type": "http.response.body", "body": body}
        self.stable_headers = tuple((name, value) for name, value in headers if name.lower() not in _OF_THE_MOMENT)
        self.lifetime_s = lifetime_s
        self.labels = labels
        self.fetched_at_s = self.ends_at_s = 0.0
        self.refresh_headers(age_s)

    def refresh_headers(self, age_s: int) -> None:
        """Make the fields of this second anew."""
        self.age_s = age_s
        status = b"taskgate; hit; ttl=%d" % (self.lifetime_s - age_s)
        self.headers = ((b"age", b"%d" % age_s), (b"cache-status", status), *self.stable_headers)

    def size_bytes(self, key: Key) -> int:
        """What it takes in memory, about."""
        texts = sum(len(part) for part in key if part is not None)
        fields = sum(len(name) + len(value) + 120 for name, value in self.stable_headers)
        return _ENTRY_BYTES + len(self.body) + texts + fields


class ResponseCache:
    """Wraps the edge. Keeps finished answers up to `max_bytes`; 0 keeps none. `clock` tells seconds since the epoch.

    An answer is kept for the credential that it was given to, no longer than that is good. Whatever else may take it
    away, a change of callers or of settings, must be followed by `forget`.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        authenticate_cached: Recognise,
        observers: Sequence[Observer],
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        max_bytes: int,
    ) -> None:
        self._app = app
        self._recognise = authenticate_cached
        self._observers = tuple(observers)
        self._clock = clock
        self._wall = wall
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Key, _Finished] = OrderedDict()
        self._lock = Lock()
        self._forgotten = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer from what is kept, or let the rest of the service answer and keep that."""
        answer = self.at_once(scope)
        if answer is not None:
            for message in answer:
                await send(message)
        elif self._max_bytes and scope["type"] == "http" and scope["method"] == "GET":
            await self._ask(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def at_once(self, scope: Any) -> Messages | None:
        """The answer, where it is kept: then the request has been observed. From any thread; awaits nothing."""
        started_s = time.perf_counter()
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        lines = scope["headers"]
        fields = dict(lines)
        key = _key(scope, fields)
        now_s = self._clock()
        with self._lock:
            finished = self._kept.get(key)
            if finished is None:
                return None
            if now_s >= finished.ends_at_s or now_s < finished.fetched_at_s - STEP_BACK_S:
                self._drop(key)
                return None
            age_s = int(now_s - finished.fetched_at_s)
            if age_s > finished.age_s:
                finished.refresh_headers(age_s)
            headers = finished.headers
            self._kept.move_to_end(key)
        if len(fields) != len(lines) or not _STEERING.isdisjoint(fields) or _size_bytes(fields) > FIELDS_MAX_BYTES:
            return None
        request_id = request_id_of(fields.get(b"x-request-id"))
        observation = RequestRecord(
            request_id=request_id,
            labels=finished.labels,
            waited_s=0.0,
            upstream_s=0.0,
            duration_s=time.perf_counter() - started_s,
            ended_at_s=now_s,
            answer_bytes=len(finished.body),
        )
        for observe in self._observers:
            observe(observation)
        headers = (*headers, (b"x-request-id", request_id.encode()))
        return {"type": "http.response.start", "status": finished.status, "headers": headers}, finished.body_message

    def forget(self, app: str | None = None) -> None:
        """Drop all answers of an app, or of all; those that are on their way are not kept either."""
        with self._lock:
            self._forgotten += 1
            for key in [key for key, finished in self._kept.items() if app is None or finished.labels.app == app]:
                self._drop(key)

    async def _ask(self, scope: Any, receive: Any, send: Any) -> None:
        """Let the rest of the service answer; keep its answer unless something was forgotten meanwhile."""
        lines = scope["headers"]
        fields = dict(lines)
        key = _key(scope, fields)
        answer = _Recorder(send)
        forgotten = self._forgotten
        await self._app(scope, receive, answer.send)
        context = scope.get("state", {}).get("context")
        known = self._recognise(fields.get(b"authorization"))
        if context is None or context.app is None or known is None or len(fields) != len(lines):
            return
        finished = answer.finished(scope.get("path_template", UNROUTED), known.caller.name, context.app)
        if finished is None or forgotten != self._forgotten:
            return
        # `Age` was rounded down: the fetch may have been a second earlier than it says, never later.
        now_s = self._clock()
        finished.fetched_at_s = now_s - finished.age_s
        until_s = now_s + known.until_s - self._wall()  # credentials end by this machine's own clock
        finished.ends_at_s = min(finished.fetched_at_s - 1 + finished.lifetime_s, until_s)
        with self._lock:
            older = self._kept.get(key)
            if older is None or older.fetched_at_s - 1 < finished.fetched_at_s:
                self._keep(key, finished, now_s=now_s)

    def _keep(self, key: Key, finished: _Finished, *, now_s: float) -> None:
        """With the lock held."""
        self._drop(key)
        size = finished.size_bytes(key)
        if size > self._max_bytes or now_s >= finished.ends_at_s:
            return
        self._kept[key] = finished
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        """With the lock held."""
        finished = self._kept.pop(key, None)
        if finished is not None:
            self.bytes -= finished.size_bytes(key)


def _key(scope: Any, fields: Fields) -> Key:
    return (
        scope["path"],
        scope["query_string"],
        fields.get(b"authorization"),
        fields.get(b"accept"),
        fields.get(b"accept-encoding"),
        fields.get(b"prefer"),
        fields.get(b"if-none-match"),
    )


def _size_bytes(fields: Fields) -> int:
    return sum(map(len, chain(fields, fields.values())))


class _Recorder:
    """Sends on, and holds what has passed: one start and one body."""

    __slots__ = ("_bodies", "_send", "_start")

    def __init__(self, send: Any) -> None:
        self._send = send
        self._start: Any = None
        self._bodies: list[Any] = []

    async def send(self, message: Any) -> None:
        """One message of ASGI."""
        if message["type"] == "http.response.start":
            self._start = message
        elif len(self._bodies) < 2:
            self._bodies.append(message)
        await self._send(message)

    def finished(self, route: str, caller: str, app: str) -> _Finished | None:
        """The answer, where it is whole and its fields tell an age below the lifetime."""
        if self._start is None or self._start["status"] not in (200, 304) or len(self._bodies) != 1:
            return None
        fields = {name.lower(): value for name, value in self._start["headers"]}
        age, lifetime = fields.get(b"age"), _MAX_AGE.search(fields.get(b"cache-control", b""))
        if age is None or lifetime is None or self._bodies[0].get("more_body", False):
            return None
        status = self._start["status"]
        return _Finished(
            status,
            self._start["headers"],
            self._bodies[0].get("body", b""),
            age_s=int(age),
            lifetime_s=int(lifetime[1]),
            labels=labels_of("GET", route, status, caller, app, Source.HIT.value),
        )
