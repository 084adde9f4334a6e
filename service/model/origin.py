"""The origin of a piece of work: links the logs and traces of a request to those of its upstream call."""

import msgspec


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """The originating request. `traceparent` is its span in W3C Trace Context form; texts are empty for none."""

    request_id: str = ""
    traceparent: str = ""


NOBODY = Origin()
"""No originating request: a block is renewed in the background."""
