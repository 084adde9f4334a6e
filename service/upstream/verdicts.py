"""The result of a call as a word, the consequence of a failure, and its explanation for operators. Pure."""

from enum import StrEnum

from service.model.errors import (
    CallsStopped,
    QueryRefused,
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


class RetryVerdict(StrEnum):
    """The consequence of a failed fetch. Every retry takes a new turn."""

    AGAIN = "again"
    """Retry a bounded number of times (`budget.attempts`)."""
    ONCE_MORE = "once_more"
    """Retry once; if the signature was refused as expired, the client creates a new one by itself."""
    AFTER_PAUSE = "after_pause"
    """Pause the shared budget, then retry a bounded number of times."""
    NEVER = "never"
    """Don't retry: the same call would fail the same way."""


_OF_KIND = {
    CodeKind.TRANSIENT: RetryVerdict.AGAIN,
    CodeKind.ANSWER_NOT_BUILT: RetryVerdict.ONCE_MORE,
    CodeKind.SIGNATURE_EXPIRED: RetryVerdict.ONCE_MORE,
    CodeKind.THROTTLED: RetryVerdict.AFTER_PAUSE,
}


def verdict(error: UpstreamError) -> RetryVerdict:
    """Return the consequence of `error`."""
    match error:
        case CallsStopped() | QueryRefused():
            return RetryVerdict.NEVER
        case UpstreamRefused(code=code):
            return _OF_KIND.get(kind_of(code), RetryVerdict.NEVER)
        case UpstreamHTTPStatus(status=429) | UpstreamHTTPStatus(status=503, retry_after_s=float()):
            return RetryVerdict.AFTER_PAUSE
        case UpstreamHTTPStatus(status=status):
            return RetryVerdict.AGAIN if status >= 500 else RetryVerdict.NEVER
        case UpstreamBroken(repeats=True):
            return RetryVerdict.NEVER
        case UpstreamTimeout() | UpstreamUnreachable() | UpstreamBroken():
            return RetryVerdict.AGAIN
    return RetryVerdict.NEVER


def explain(error: UpstreamError) -> str:
    """Describe what is wrong with the app's call, and what an operator can do."""
    match error:
        case UpstreamRefused(code=code, text=text, advice=advice):
            return f"The upstream refused the call with code {code} ({text or 'no text'}). {advice}"
        case UpstreamHTTPStatus(status=status):
            trouble = "The upstream is in trouble or overloaded: try again later."
            stranger = (
                "The upstream never gives it, so something else answers at this address: check the app's base_url, and "
                "proxies on the way."
            )
            return f"The answer was HTTP status {status}. {trouble if status >= 500 or status == 429 else stranger}"
        case UpstreamUnreachable():
            return (
                f"No call was made: {error}. Check that this machine resolves and reaches the upstream's host (DNS, "
                "firewall, certificates), and the app's region or base_url."
            )
        case UpstreamTimeout():
            return (
                f"A connection was made, but: {error}. The upstream is slow, or something on the way swallows answers; "
                "if this lasts, see upstream.read_timeout_s and upstream.call_timeout_s."
            )
        case UpstreamBroken():
            return (
                f"The answer can't be used: {error}. If this lasts, something else may answer at this address (check "
                "the app's base_url), or the upstream has changed."
            )
    return str(error)


def result_of(error: Exception | None) -> str:
    """Return a word from RESULTS, for logs, metrics and traces."""
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
