"""What is noted of a request on its way, and what is told of it when it has ended."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from service.model.origin import Origin

# Version 00 of W3C Trace Context, 3.2: the only one that there is.
_TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

LABELS_MAX = 1000
"""Of how many kinds of requests something is remembered: callers and apps come and go with reloads."""

Fields = Mapping[bytes, bytes]
"""A request's header fields by lower-case name; lines of one name are joined by commas (RFC 9110, 5.2)."""


class RequestContext(msgspec.Struct, kw_only=True):
    """Filled along the way: the one mutable value of a request. The edge makes it, handlers add to it."""

    request_id: str
    fields: Fields
    is_head: bool = False
    caller: str | None = None
    app: str | None = None
    outcome: str | None = None
    waited_s: float = 0.0
    upstream_s: float = 0.0
    wait_applied_s: int | None = None
    hung_up: bool = False

    @property
    def origin(self) -> Origin:
        """The request, for whatever is done on its behalf. Its `traceparent` is taken where it looks like one."""
        traceparent = self.fields.get(b"traceparent", b"")
        told = traceparent.decode() if _TRACEPARENT.fullmatch(traceparent) else ""
        return Origin(request_id=self.request_id, traceparent=told)


class RequestLabels(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What a request that has ended has in common with many others: closed sets, and names of callers and apps.

    `labels_of` gives one object to all that agree, so they are told apart as objects, which costs next to nothing.
    `route` is the template (`/problems/{name}`) or "unrouted"; `status` is 499 where the caller hung up before the
    answer; `outcome` is a page's source, `streamed`, or a problem's name, also of one that ended a stream; else None.
    """

    method: str
    route: str
    status: int
    caller: str | None
    app: str | None
    outcome: str | None


@lru_cache(maxsize=LABELS_MAX)
def labels_of(  # noqa: PLR0917 - a cache takes them by position
    method: str, route: str, status: int, caller: str | None, app: str | None, outcome: str | None
) -> RequestLabels:
    """The labels of these values: the same object as long as it is among the `LABELS_MAX` used last."""
    return RequestLabels(method, route, status, caller, app, outcome)


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request that has ended, for logs and metrics. `ended_at_s` is in seconds since the epoch."""

    request_id: str
    labels: RequestLabels
    waited_s: float
    upstream_s: float
    duration_s: float
    ended_at_s: float
    answer_bytes: int


Observer = Callable[[RequestRecord], None]
"""Told of every request when it has ended; must neither block nor raise."""
