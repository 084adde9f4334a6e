"""The outcome of a call as a word from a closed set, for logs, metrics and traces."""

from service.model.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamHTTPStatus,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from service.upstream.codes import CodeKind, kind_of

OK = "ok"
HTTP_STATUS = "http_status"
FAILED = "failed"
"""An internal error."""

RESULTS = (OK, "timeout", "unreachable", "broken", HTTP_STATUS, *(kind.value for kind in CodeKind), FAILED)
"""All values that `result_of` returns."""


def result_of(error: Exception | None) -> str:
    """Return how a call ended: `ok`, the kind of the error code, or of the failure before there was one."""
    match error:
        case None:
            return OK
        case UpstreamRefused(code=code):
            return kind_of(code).value
        case UpstreamTimeout():
            return "timeout"
        case UpstreamUnreachable():
            return "unreachable"
        case UpstreamHTTPStatus():
            return HTTP_STATUS
        case UpstreamBroken() | UpstreamError():
            return "broken"
        case _:
            return FAILED
