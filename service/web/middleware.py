"""The outermost ASGI middleware: handles every request, including unrouted ones, and every response as sent."""

import asyncio
import os
import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

from litestar.types import ASGIApp

from service.observe.outcomes import HUNG_UP
from service.observe.request import (
    UNROUTED,
    HeaderFields,
    RequestContext,
    RequestLabels,
    RequestObserver,
    RequestRecord,
    request_labels_of,
    trace_id_of,
)
from service.server.asgi import Client, Messages, Scope
from service.web.client_address import PEERS, ClientAddresses
from service.web.headers.origin import cross_origin_status
from service.web.problems.handlers import failure_response, rejection_response
from service.web.responses import NOSNIFF, Header

URL_MAX_BYTES = 8 * 1024
FIELDS_MAX_BYTES = 16 * 1024

STATUS_HUNG_UP = 499

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_METHODS = frozenset(("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"))


class RequestMiddleware:
    """Wraps the application: request ids, size limits, HEAD, last-resort error handling, and one record per request."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        observers: Sequence[RequestObserver],
        clients: ClientAddresses = PEERS,
        is_open: bool = False,
    ) -> None:
        """`is_open` means that no credential is needed, so cross-origin requests are rejected by other means."""
        self.app = app
        self.clients = clients
        self._is_open = is_open
        self.observers = tuple(observers)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI scope; lifespan and websocket scopes are passed through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started_s = time.perf_counter()
        method = scope["method"]
        fields, fields_bytes = header_fields_of(scope["headers"])
        own_id = fields.get(b"x-request-id")
        context = RequestContext(request_id=request_id_of(own_id), fields=fields, is_head=method == "HEAD")
        scope["state"] = {"context": context}
        outgoing = _Outgoing(send, context.request_id, is_head=method == "HEAD")
        refused = _refused_status(scope, fields, fields_bytes)
        if refused is None:
            refused = cross_origin_status(method, fields, is_open=self._is_open)
        if method == "HEAD":
            scope["method"] = "GET"
        try:
            if refused is not None:
                await rejection_response(refused, context)(scope, receive, outgoing.send)
            else:
                await self.app(scope, receive, outgoing.send)
        except Exception as exc:  # noqa: BLE001 - the last resort: nothing above this would log it
            response = failure_response(context, exc)
            if not outgoing.status:
                await response(scope, receive, outgoing.send)
        except asyncio.CancelledError:  # the server cuts off whatever its shutdown has not let end
            if not outgoing.status:
                await rejection_response(503, context)(scope, receive, outgoing.send)
            raise
        finally:
            if context.hung_up:
                context.outcome = HUNG_UP
            labels = request_labels_of(
                method if method in _METHODS else "other",
                scope.get("path_template", UNROUTED),
                outgoing.status or STATUS_HUNG_UP,
                context.caller,
                context.app,
                context.outcome,
            )
            client = self.clients.of(scope.get("client"), fields)
            self._report(context, labels, client=client, started_s=started_s)

    def refuse(self, status: int, client: Client | None) -> Messages:
        """Return the response to a peer's request that could not be parsed, and report it like any other."""
        started_s = time.perf_counter()
        context = RequestContext(request_id=request_id_of(None), fields={})
        response = rejection_response(status, context)
        labels = request_labels_of("other", UNROUTED, status, None, None, context.outcome)
        address = None if client is None else client[0]
        self._report(context, labels, client=address, started_s=started_s)
        headers = (*response.headers, NOSNIFF, (b"x-request-id", context.request_id.encode()))
        start = {"type": "http.response.start", "status": status, "headers": headers}
        return start, {"type": "http.response.body", "body": response.body}

    def _report(self, context: RequestContext, labels: RequestLabels, *, client: str | None, started_s: float) -> None:
        record = RequestRecord(
            request_id=context.request_id,
            labels=labels,
            client=client,
            trace_id=trace_id_of(context.fields),
            waited_s=context.cost.waited_s,
            upstream_s=context.cost.upstream_s,
            calls=context.cost.calls,
            duration_s=time.perf_counter() - started_s,
            ended_at_s=time.time(),
        )
        for observe in self.observers:
            observe(record)


class _Outgoing:
    """Passes messages on: adds the request id, lists HEAD in `Allow` next to GET, and drops bodies for HEAD."""

    __slots__ = ("_is_head", "_request_id", "_send", "status")

    def __init__(self, send: Any, request_id: str, *, is_head: bool) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._is_head = is_head
        self.status = 0

    async def send(self, message: Any) -> None:
        """Pass on one ASGI message."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message["headers"], (b"x-request-id", self._request_id), NOSNIFF]
            if self.status in (204, 405):
                headers = [_with_head(header) for header in headers]
            message = {"type": "http.response.start", "status": self.status, "headers": headers}
        elif self._is_head:
            message = {"type": "http.response.body", "body": b"", "more_body": message.get("more_body", False)}
        await self._send(message)


def header_fields_of(headers: Iterable[Header]) -> tuple[HeaderFields, int]:
    """Return the header fields by name, and their total size in bytes."""
    fields: dict[bytes, bytes] = {}
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        fields[name] = b"%s, %s" % (fields[name], value) if name in fields else value
    return fields, size


_new_ids: list[str] = []


def request_id_of(own: bytes | None) -> str:
    """Return the client's own id if it is valid, else a new one, which is unique but not secret."""
    if own is not None and _REQUEST_ID.fullmatch(own):
        return own.decode()
    if not _new_ids:  # fill up with one system call
        text = os.urandom(4096).hex()
        _new_ids.extend(text[start : start + 32] for start in range(0, len(text), 32))
    return _new_ids.pop()


def _refused_status(scope: Scope, fields: HeaderFields, fields_bytes: int) -> int | None:
    """Return 413, 414 or 431 if the request is too large. GET, HEAD and DELETE take no body; other methods get 405."""
    if len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"]) > URL_MAX_BYTES:
        return 414
    if fields_bytes > FIELDS_MAX_BYTES:
        return 431
    if scope["method"] in ("GET", "HEAD", "DELETE") and (
        b"transfer-encoding" in fields or fields.get(b"content-length", b"0").strip(b"0")
    ):
        return 413
    return None


def _with_head(header: Header) -> Header:
    name, value = header
    if name.lower() != b"allow":
        return header
    methods = {method.strip() for method in value.split(b",")}
    if b"GET" in methods:
        methods.add(b"HEAD")
    return name, b", ".join(sorted(methods))
