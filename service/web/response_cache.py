"""A cache of complete responses in front of the application: the hot path, before anything is parsed.

A private HTTP cache (RFC 9111) that relies only on a response's own header fields for its age and freshness lifetime.
A response is stored for the credential of its request, and served only while both are valid. Requests served from the
cache are reported to the observers like any others.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from service.model.callers import Authenticated
from service.model.pages import Source
from service.observe.request import UNROUTED, Fields, Observer, RequestLabels, RequestRecord, labels_of, trace_id_of
from service.web.answers import Header
from service.web.client_address import PEERS, ClientAddresses
from service.web.headers.ratelimit import STATE
from service.web.middleware import FIELDS_MAX_BYTES, AsgiApp, Messages, request_id_of

# Requests with any of these fields bypass the cache.
_STEERING = frozenset((b"cache-control", b"pragma", b"content-length", b"transfer-encoding"))
_OF_THE_MOMENT = frozenset((b"age", b"cache-status", b"server-timing", STATE.lower().encode(), b"x-request-id"))
_MAX_AGE = re.compile(rb"(?:^|[ ,])max-age=([0-9]{1,9})(?:$|[ ,])")
# Memory overhead of an entry without its body, fields and key, measured with tracemalloc.
_ENTRY_BYTES = 1850

Key = tuple[str, bytes, bytes | None, bytes | None, bytes | None, bytes | None, bytes | None]
"""Path, query string, credential, and the request fields that select a response."""

STEP_BACK_S = 1.0
"""If the clock is this far before the time of a response's fetch, it was set back: the response's age is unknown."""

AuthenticateCached = Callable[[bytes | None], Authenticated | None]
"""Return the caller of an `Authorization` field and how long it is valid if already known, else None."""


class _CachedResponse:
    """A response with its header fields as of `age_s`, fresh until `ends_at_s` on the shared clock."""

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
        """Recompute `Age` and `Cache-Status`."""
        self.age_s = age_s
        status = b"taskgate; hit; ttl=%d" % (self.lifetime_s - age_s)
        self.headers = ((b"age", b"%d" % age_s), (b"cache-status", status), *self.stable_headers)

    def size_bytes(self, key: Key) -> int:
        """Return the approximate memory usage in bytes."""
        texts = sum(len(part) for part in key if part is not None)
        fields = sum(len(name) + len(value) + 120 for name, value in self.stable_headers)
        return _ENTRY_BYTES + len(self.body) + texts + fields


class ResponseCache:
    """Wraps an ASGI app and caches its responses, up to `max_bytes` (0: none). `clock` returns seconds since the epoch.

    Call `forget` after anything else that invalidates responses, such as a change of callers or settings.
    """

    def __init__(
        self,
        app: AsgiApp,
        *,
        authenticate_cached: AuthenticateCached,
        observers: Sequence[Observer],
        clients: ClientAddresses = PEERS,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        max_bytes: int,
    ) -> None:
        self._app = app
        self._authenticate_cached = authenticate_cached
        self._observers = tuple(observers)
        self._clients = clients
        self._clock = clock
        self._wall = wall
        self._max_bytes = max_bytes
        self._responses: OrderedDict[Key, _CachedResponse] = OrderedDict()
        self._generation = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._responses)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond from the cache, or call the app and cache its response."""
        messages = self.lookup(scope)
        if messages is None:
            await self.call_app(scope, receive, send)
        else:
            for message in messages:
                await send(message)

    async def call_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the app and cache its response, after `lookup` has returned None."""
        if self._max_bytes and scope["type"] == "http" and scope["method"] == "GET":
            await self._recorded(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def lookup(self, scope: Any) -> Messages | None:
        """Return the cached response and report the request, or return None if there is none."""
        started_s = time.perf_counter()
        if scope["type"] != "http" or scope["method"] != "GET":
            return None
        lines = scope["headers"]
        fields = dict(lines)
        key = _key(scope, fields)
        now_s = self._clock()
        response = self._responses.get(key)
        if response is None:
            return None
        if now_s >= response.ends_at_s or now_s < response.fetched_at_s - STEP_BACK_S:
            self._drop(key)
            return None
        if len(fields) != len(lines) or not _STEERING.isdisjoint(fields) or _size_bytes(fields) > FIELDS_MAX_BYTES:
            return None
        age_s = int(now_s - response.fetched_at_s)
        if age_s > response.age_s:
            response.refresh_headers(age_s)
        self._responses.move_to_end(key)
        request_id = request_id_of(fields.get(b"x-request-id"))
        observation = RequestRecord(
            request_id=request_id,
            labels=response.labels,
            client=self._clients.of(scope, fields),
            trace_id=trace_id_of(fields),
            waited_s=0.0,
            upstream_s=0.0,
            calls=0,
            duration_s=time.perf_counter() - started_s,
            ended_at_s=now_s,
            answer_bytes=len(response.body),
        )
        for observe in self._observers:
            observe(observation)
        headers = (*response.headers, (b"x-request-id", request_id.encode()))
        return {"type": "http.response.start", "status": response.status, "headers": headers}, response.body_message

    def forget(self, app: str | None = None) -> None:
        """Drop the responses of an app, or all. Responses in progress are not cached either."""
        self._generation += 1
        for key in [key for key, response in self._responses.items() if app is None or response.labels.app == app]:
            self._drop(key)

    async def _recorded(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the app and cache its response unless `forget` is called in the meantime."""
        lines = scope["headers"]
        fields = dict(lines)
        key = _key(scope, fields)
        recorder = _Recorder(send)
        generation = self._generation
        await self._app(scope, receive, recorder.send)
        context = scope.get("state", {}).get("context")
        known = self._authenticate_cached(fields.get(b"authorization"))
        if context is None or context.app is None or known is None or len(fields) != len(lines):
            return
        response = recorder.response(scope.get("path_template", UNROUTED), known.caller.name, context.app)
        if response is None or generation != self._generation:
            return
        # `Age` is rounded down: the fetch may have been up to a second earlier than it implies, never later.
        now_s = self._clock()
        response.fetched_at_s = now_s - response.age_s
        until_s = now_s + known.until_s - self._wall()  # credentials expire by the local wall clock
        response.ends_at_s = min(response.fetched_at_s - 1 + response.lifetime_s, until_s)
        older = self._responses.get(key)
        if older is None or older.fetched_at_s - 1 < response.fetched_at_s:
            self._keep(key, response, now_s=now_s)

    def _keep(self, key: Key, response: _CachedResponse, *, now_s: float) -> None:
        self._drop(key)
        size = response.size_bytes(key)
        if size > self._max_bytes or now_s >= response.ends_at_s:
            return
        self._responses[key] = response
        self.bytes += size
        while self.bytes > self._max_bytes:
            self._drop(next(iter(self._responses)))

    def _drop(self, key: Key) -> None:
        response = self._responses.pop(key, None)
        if response is not None:
            self.bytes -= response.size_bytes(key)


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
    """Passes messages on and records a response that consists of one start and one body message, but no other."""

    __slots__ = ("_body", "_send", "_start")

    def __init__(self, send: Any) -> None:
        self._send = send
        self._start: Any = None
        self._body: bytes | None = None

    async def send(self, message: Any) -> None:
        """Pass on one ASGI message."""
        if message["type"] == "http.response.start":
            self._start = message
        elif message.get("more_body", False) or self._body is not None:
            self._start = self._body = None
        elif self._start is not None:
            self._body = message.get("body", b"")
        await self._send(message)

    def response(self, route: str, caller: str, app: str) -> _CachedResponse | None:
        """Return the response if it is complete and its header fields give its freshness lifetime."""
        if self._start is None or self._body is None or self._start["status"] not in (200, 304):
            return None
        fields = {name.lower(): value for name, value in self._start["headers"]}
        age, lifetime = fields.get(b"age"), _MAX_AGE.search(fields.get(b"cache-control", b""))
        if age is None or lifetime is None:
            return None
        status = self._start["status"]
        return _CachedResponse(
            status,
            self._start["headers"],
            self._body,
            age_s=int(age),
            lifetime_s=int(lifetime[1]),
            labels=labels_of("GET", route, status, caller, app, Source.HIT.value),
        )
