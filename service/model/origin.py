"""Where a piece of work comes from: what ties the logs and traces of a request to those of its upstream call."""

import msgspec


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The request that asks. `traceparent` is its span in the form of W3C Trace Context; texts are empty for none."""

    request_id: str = ""
    traceparent: str = ""


NOBODY = Origin()
"""No request asks: a block is renewed in the background."""
