"""What is recorded about a request while it is handled, and the record reported when it has ended."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from service.model.origin import FetchCost, Origin

# W3C Trace Context, 3.2, version 00: the only version so far. A trace id of zeros is invalid.
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
TRACESTATE_MAX_BYTES = 512
"""A longer `tracestate` is dropped (W3C Trace Context, 3.3.1.5)."""

UNROUTED = "unrouted"
"""The route of requests that match none."""

LABELS_MAX = 1000
"""How many combinations of labels are cached; callers and apps change with reloads."""

HeaderFields = Mapping[bytes, bytes]
"""A request's header fields by lower-case name; lines of the same name are joined by commas (RFC 9110, 5.2)."""


class RequestContext(msgspec.Struct, kw_only=True):
    """Filled in by the middleware and the handlers while the request is handled; `cost` by fetches on its behalf."""

    request_id: str
    fields: HeaderFields
    is_head: bool = False
    caller: str | None = None
    app: str | None = None
    outcome: str | None = None
    cost: FetchCost = msgspec.field(default_factory=FetchCost)
    wait_applied_s: int | None = None
    hung_up: bool = False

    @property
    def origin(self) -> Origin:
        """Return the request as the origin of work done on its behalf. Includes `traceparent` only if well-formed."""
        if trace_id_of(self.fields) is None:
            return Origin(request_id=self.request_id, cost=self.cost)
        tracestate = self.fields.get(b"tracestate", b"")
        return Origin(
            request_id=self.request_id,
            traceparent=self.fields[b"traceparent"].decode(),
            tracestate="" if len(tracestate) > TRACESTATE_MAX_BYTES else tracestate.decode("latin-1"),
            cost=self.cost,
        )


def context_of(scope: Mapping[str, Any]) -> RequestContext:
    """Return the context that `RequestMiddleware` attached to the request of this ASGI scope."""
    context = scope["state"]["context"]
    assert isinstance(context, RequestContext)  # noqa: S101 - narrows the type; only the middleware sets it
    return context


class RequestLabels(msgspec.Struct, frozen=True, eq=False, gc=False):
    """Properties that a finished request shares with many others: closed sets, and names of callers and apps.

    `request_labels_of` returns the same object for equal values, so labels are compared by identity, which costs next
    to nothing. `route` is the template (`/problems/{name}`) or "unrouted"; `status` is 499 if the caller hung up before
    the response; `outcome` is a page's source, `streamed`, `hung-up` (also in the middle of a stream), or a problem's
    name, also for a problem that ended a stream; else None.
    """

    method: str
    route: str
    status: int
    caller: str | None
    app: str | None
    outcome: str | None


@lru_cache(maxsize=LABELS_MAX)
def request_labels_of(  # noqa: PLR0917 - a cache takes them by position
    method: str, route: str, status: int, caller: str | None, app: str | None, outcome: str | None
) -> RequestLabels:
    """Return the labels for these values: the same object as long as it is among the `LABELS_MAX` last used."""
    return RequestLabels(method, route, status, caller, app, outcome)


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A finished request, for logs, metrics and traces. `ended_at_s` is in seconds since the epoch.

    `waited_s`, `upstream_s` and `calls` are those of `FetchCost`, also of failed requests. `client` is an IP address,
    None on a Unix socket; `trace_id` is None outside of a trace.
    """

    request_id: str
    labels: RequestLabels
    client: str | None
    trace_id: str | None
    waited_s: float
    upstream_s: float
    calls: int
    duration_s: float
    ended_at_s: float


def trace_id_of(fields: HeaderFields) -> str | None:
    """Return the trace id of a valid `traceparent`, else None."""
    traceparent = fields.get(b"traceparent")
    if traceparent is None or not _TRACEPARENT.fullmatch(traceparent):
        return None
    return traceparent[3:35].decode()


RequestObserver = Callable[[RequestRecord], None]
"""Called after each request. Must not block or raise."""
