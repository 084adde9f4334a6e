"""The origin of a piece of work: links the logs and traces of a request to those of its upstream call."""

import msgspec


class FetchCost(msgspec.Struct, kw_only=True):
    """What fetching for a request has cost so far: mutable, since it also counts if the request fails or is cancelled.

    `waited_s` is the time in line, `upstream_s` the time of calls made while the request waited for their block, and
    `calls` how many calls were made in turns of this request.
    """

    waited_s: float = 0.0
    upstream_s: float = 0.0
    calls: int = 0


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The originating request. `traceparent` and `tracestate` are its span in W3C Trace Context form; empty for none.

    Work done for the request adds to `cost`; None if it is not recorded.
    """

    request_id: str = ""
    traceparent: str = ""
    tracestate: str = ""
    cost: FetchCost | None = None


NOBODY = Origin()
"""No originating request: a block is renewed in the background."""


class Payer(msgspec.Struct, frozen=True, kw_only=True):
    """The caller whose turn a call uses, the origin of its first request for the block, and how long that request
    waited."""

    caller: str
    origin: Origin
    waited_s: float
