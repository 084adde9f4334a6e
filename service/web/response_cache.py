"""A cache of complete responses in front of the application: the hot path, before anything is parsed.

A private HTTP cache (RFC 9111) of pages and tasks. A response is stored for the credential of its request, once the
same request has been seen before, and served only while both are valid. Requests served from the cache are reported to
the observers like any others.
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from service.cache.lru import LruTable
from service.model.callers import Authenticated
from service.model.pages import Source
from service.observe.request import (
    UNROUTED,
    HeaderFields,
    RequestLabels,
    RequestObserver,
    RequestRecord,
    request_labels_of,
    trace_id_of,
)
from service.server.asgi import Application, Client, EncodedResponse
from service.server.response_head import head_lines
from service.web.cacheable_response import CACHEABLE, CacheableResponse
from service.web.client_address import PEERS, ClientAddresses
from service.web.headers.ratelimit import RATELIMIT
from service.web.middleware import FIELDS_MAX_BYTES, request_id_of
from service.web.responses import NOSNIFF, Header, Response

# Requests with any of these fields bypass the cache.
_BYPASS_FIELDS = frozenset((b"cache-control", b"pragma", b"content-length", b"transfer-encoding"))
_VOLATILE_FIELDS = frozenset((b"age", b"cache-status", b"server-timing", RATELIMIT.lower().encode()))
# Memory overhead of an entry without its body, fields and key, and of a head, which is held twice: measured with
# tracemalloc.
_ENTRY_BYTES = 1850
_HEAD_BYTES = 1200

Key = tuple[str, bytes, bytes | None, bytes | None, bytes | None, bytes | None, bytes | None]
"""Path, query string, credential, and the request fields that select a response."""

SEEN_MAX = 10_000
"""How many requests are remembered as seen before, by the hash of their key."""

_HEADS_FRACTION = 8
"""The fraction of the memory that is for the heads of requests: one in this many."""

STEP_BACK_S = 1.0
"""If the clock is this far before the time of a response's fetch, it was set back: the response's age is unknown."""

AuthenticateCached = Callable[[bytes | None], Authenticated | None]
"""Return the caller of an `Authorization` field and how long it is valid if already known, else None."""


class _CachedResponse:
    """A response, fresh until `ends_at_s` on the shared clock.

    `headers`, and `lines`, the status line with them, are as of `age_s`.
    """

    __slots__ = (
        "age_s",
        "body",
        "ends_at_s",
        "fetched_at_s",
        "headers",
        "labels",
        "lifetime_s",
        "lines",
        "stable_headers",
        "status",
    )

    def __init__(
        self, response: Response, *, fetched_at_s: float, lifetime_s: int, ends_at_s: float, labels: RequestLabels
    ) -> None:
        self.age_s = -1
        self.status = response.status
        self.body = response.body
        self.stable_headers = (*(field for field in response.sent_headers if field[0] not in _VOLATILE_FIELDS), NOSNIFF)
        self.fetched_at_s = fetched_at_s
        self.lifetime_s = lifetime_s
        self.ends_at_s = ends_at_s
        self.labels = labels

    def refresh_headers(self, age_s: int) -> None:
        """Recompute `Age` and `Cache-Status`."""
        self.age_s = age_s
        status = b"taskgate; hit; ttl=%d" % (self.lifetime_s - age_s)
        self.headers: tuple[Header, ...] = ((b"age", b"%d" % age_s), (b"cache-status", status), *self.stable_headers)
        self.lines = head_lines(self.status, self.headers)

    def size_bytes(self, key: Key) -> int:
        """Return the approximate memory usage in bytes."""
        texts = sum(len(part) for part in key if part is not None)
        fields = sum(len(name) + 2 * len(value) + 120 for name, value in self.stable_headers)
        return _ENTRY_BYTES + len(self.body) + texts + fields


class ResponseCache:
    """Wraps an ASGI app and caches its responses, up to `max_bytes` (0: none). `clock` returns seconds since the epoch.

    Call `forget` after anything else that invalidates responses, such as a change of callers or settings.
    """

    def __init__(
        self,
        app: Application,
        *,
        authenticate_cached: AuthenticateCached,
        observers: Sequence[RequestObserver],
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
        heads_bytes = max_bytes // _HEADS_FRACTION
        self._responses: LruTable[Key, _CachedResponse] = LruTable(
            max_bytes - heads_bytes, size_of=lambda key, response: response.size_bytes(key)
        )
        self._seen: LruTable[int, int] = LruTable(SEEN_MAX)
        self._heads: LruTable[bytes, tuple[Key, HeaderFields]] = LruTable(
            heads_bytes, size_of=lambda head, _: _HEAD_BYTES + 2 * len(head)
        )
        self._generation = 0

    def __len__(self) -> int:
        return len(self._responses)

    @property
    def size_bytes(self) -> int:
        """The total size of the cached responses, and of the heads of their requests."""
        return self._responses.size + self._heads.size

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond from the cache, or call the app and cache its response."""
        request = _recognize(scope)
        served = request and self._serve(*request, scope.get("client"))
        if not served:
            await self.call_app(scope, receive, send)
            return
        response, request_id = served
        headers = (*response.headers, (b"x-request-id", request_id.encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def call_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the app and cache its response, after `lookup` has returned None."""
        is_get = scope["type"] == "http" and scope["method"] == "GET"
        generation = self._generation
        await self._app(scope, receive, send)
        if is_get and self._max_bytes and generation == self._generation:
            response = scope["state"].get(CACHEABLE)
            if response is not None:
                self._store(scope, response)

    def lookup_head(self, head: bytes, client: Client | None) -> EncodedResponse | None:
        """Return the cached response to a request with the same bytes as an earlier one, and report the request."""
        request = self._heads.get(head)
        if request is None:
            return None
        served = self._serve(*request, client)
        if served is None:
            self._heads.pop(head)
            return None
        return _encode(*served)

    def lookup(self, scope: Any, head: bytes) -> EncodedResponse | None:
        """Return the cached response and report the request, or return None if there is none."""
        request = _recognize(scope, max_bytes=len(head))
        served = request and self._serve(*request, scope["client"])
        if not request or not served:
            return None
        if _may_recur(scope, request[1]):
            self._heads.put(head, request)
        return _encode(*served)

    def _serve(self, key: Key, fields: HeaderFields, client: Client | None) -> tuple[_CachedResponse, str] | None:
        """Return a response with current header fields, and the request's id; report the request. None for none."""
        started_s = time.perf_counter()
        response = self._responses.get(key)
        if response is None:
            return None
        now_s = self._clock()
        if now_s >= response.ends_at_s or now_s < response.fetched_at_s - STEP_BACK_S:
            self._responses.pop(key)
            return None
        age_s = max(int(now_s - response.fetched_at_s), 0)
        if age_s != response.age_s:
            response.refresh_headers(age_s)
        request_id = request_id_of(fields.get(b"x-request-id"))
        record = RequestRecord(
            request_id=request_id,
            labels=response.labels,
            client=self._clients.of(client, fields),
            trace_id=trace_id_of(fields),
            waited_s=0.0,
            upstream_s=0.0,
            calls=0,
            duration_s=time.perf_counter() - started_s,
            ended_at_s=now_s,
        )
        for observe in self._observers:
            observe(record)
        return response, request_id

    def forget(self, app: str | None = None) -> None:
        """Drop the responses of an app, or all. Responses in progress are not cached either."""
        self._generation += 1
        for key in [key for key, response in self._responses.items() if app is None or response.labels.app == app]:
            self._responses.pop(key)
        self._heads.clear()

    def _store(self, scope: Any, response: CacheableResponse) -> None:
        """Store a response if the same request was seen before, unless the cached one is the same, or newer."""
        lines = scope["headers"]
        fields = dict(lines)
        key = _key(scope, fields)
        fetched_at_s = response.obtained.fetched_at_ms / 1000
        cached = self._responses.get(key)
        if cached is None:
            if self._is_first(key):
                return
        elif cached.fetched_at_s > fetched_at_s or (
            cached.fetched_at_s == fetched_at_s and cached.body == response.body
        ):
            return
        context = scope["state"]["context"]
        known = self._authenticate_cached(fields.get(b"authorization"))
        if known is None or len(fields) != len(lines):
            return
        now_s = self._clock()
        lifetime_s = int(response.obtained.lifetime_s)
        until_s = now_s + known.until_s - self._wall()  # credentials expire by the local wall clock
        ends_at_s = min(fetched_at_s + lifetime_s, until_s)
        if now_s >= ends_at_s:
            self._responses.pop(key)
            return
        route, status = scope.get("path_template", UNROUTED), response.status
        labels = request_labels_of("GET", route, status, known.caller.name, context.app, Source.HIT.value)
        stored = _CachedResponse(
            response, fetched_at_s=fetched_at_s, lifetime_s=lifetime_s, ends_at_s=ends_at_s, labels=labels
        )
        self._responses.put(key, stored)

    def _is_first(self, key: Key) -> bool:
        """Return whether this request was not seen before, and remember it."""
        seen = hash(key)
        is_first = self._seen.get(seen) is None
        self._seen.put(seen, seen)
        return is_first


def _recognize(scope: Any, *, max_bytes: float = math.inf) -> tuple[Key, HeaderFields] | None:
    """Return the key of the response to a request, and the request's fields, or None if no cached response may answer
    it. Its fields have at most `max_bytes`."""
    if scope["type"] != "http" or scope["method"] != "GET":
        return None
    lines = scope["headers"]
    fields = dict(lines)
    if len(fields) != len(lines) or not fields.keys().isdisjoint(_BYPASS_FIELDS):
        return None
    if max_bytes > FIELDS_MAX_BYTES and _size_bytes(fields) > FIELDS_MAX_BYTES:
        return None
    return _key(scope, fields), fields


def _key(scope: Any, fields: HeaderFields) -> Key:
    return (
        scope["path"],
        scope["query_string"],
        fields.get(b"authorization"),
        fields.get(b"accept"),
        fields.get(b"accept-encoding"),
        fields.get(b"prefer"),
        fields.get(b"if-none-match"),
    )


def _encode(response: _CachedResponse, request_id: str) -> EncodedResponse:
    return EncodedResponse(b"%b\r\nx-request-id: %b" % (response.lines, request_id.encode()), response.body)


def _may_recur(scope: Any, fields: HeaderFields) -> bool:
    """Return whether later requests may have the same head: a request id belongs to a single request. Return False also
    if the head closes its connection, which `lookup_head` would not see."""
    return (
        scope["http_version"] == "1.1"
        and fields.get(b"connection", b"keep-alive").lower() == b"keep-alive"
        and b"x-request-id" not in fields
        and b"traceparent" not in fields
    )


def _size_bytes(fields: HeaderFields) -> int:
    return sum(map(len, chain(fields, fields.values())))
