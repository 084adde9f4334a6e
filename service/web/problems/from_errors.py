"""Problems (RFC 9457): the single table that maps errors to what callers see of them."""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec.structs import replace

from service.model.errors import (
    BadRequest,
    CallsStopped,
    Fault,
    KeysUnavailable,
    LineFull,
    NotAllowed,
    NothingStored,
    QueryRefused,
    RangeTooWide,
    Refused,
    ShuttingDown,
    StoreUnavailable,
    StreamTooLong,
    TaskgateError,
    Throttled,
    TooManyWatchers,
    Unauthenticated,
    UnknownApp,
    UnknownTask,
    UpstreamBroken,
    UpstreamError,
    UpstreamHTTPStatus,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
    WaitTooLong,
)
from service.web.problems.types import PROBLEM_TYPES, ProblemType
from service.web.responses import Header, Response

PROBLEM_JSON = b"application/problem+json"
THROTTLED_RETRY_S = 1
UNAVAILABLE_RETRY_S = 2

_SLUGS: Mapping[type[Exception], str] = {
    BadRequest: "bad-request",
    Unauthenticated: "unauthenticated",
    KeysUnavailable: "keys-unavailable",
    UnknownApp: "unknown-app",
    UnknownTask: "unknown-task",
    NotAllowed: "not-allowed",
    WaitTooLong: "wait-too-long",
    LineFull: "line-full",
    TooManyWatchers: "too-many-watchers",
    RangeTooWide: "range-too-wide",
    NothingStored: "nothing-stored",
    ShuttingDown: "shutting-down",
    Refused: "no-fetch-now",
    StoreUnavailable: "store-unavailable",
    UpstreamTimeout: "upstream-timeout",
    UpstreamUnreachable: "upstream-unreachable",
    UpstreamBroken: "upstream-broken",
    UpstreamHTTPStatus: "upstream-http-status",
    QueryRefused: "query-refused",
    CallsStopped: "calls-stopped",
    Throttled: "throttled",
    StreamTooLong: "stream-too-long",
    UpstreamRefused: "upstream-refused",
    UpstreamError: "upstream-failed",
    TaskgateError: "failed",
}

_FIXED_DETAILS: Mapping[str, str] = {
    "keys-unavailable": "The keys that sign service accounts' tokens could not be fetched yet.",
    "unknown-app": "No app of this name is readable by this caller.",
    "unknown-task": "The app has no task with this id.",
    "failed": "The fault is logged under the request id.",
    "not-found": "No resource has this path.",
    "method-not-allowed": "The Allow field lists the supported methods.",
}
"""Fixed details, used instead of the error's text where that could reveal internals."""

_NO_CREDENTIAL = "The request carries no credential. Send 'Authorization: Bearer KEY' with your service's key or token."
_UNKNOWN_CREDENTIAL = "The credential in the Authorization field is not a known key or token, or has expired."

_BARE_DETAILS: Mapping[int, str] = {
    403: "Pages of other sites may not send this request.",
    421: "Without credentials only names of this machine are accepted: use localhost or 127.0.0.1.",
    503: "This replica has reached its limit of connections, or is shutting down. Another one may answer.",
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A problem as sent: the members of RFC 9457, the request's id, and members that some types add."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    request_id: str
    errors: tuple[Fault, ...] = ()
    place: int | None = None
    estimate_seconds: float | None = None
    bound: int | None = None
    total: int | None = None
    upstream_code: int | None = None
    upstream_text: str | None = None


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Details of an error: its problem type, a text, when to retry, and the members that the type adds."""

    type: ProblemType
    detail: str
    retry_after_s: float | None = None
    errors: tuple[Fault, ...] = ()
    place: int | None = None
    estimate_s: float | None = None
    bound: int | None = None
    total: int | None = None
    upstream_code: int | None = None
    upstream_text: str | None = None
    headers: tuple[Header, ...] = ()


def slug_of(error: type[Exception]) -> str:
    """Return the problem type's name for an error class; `failed` for an error that callers must not see."""
    return next((_SLUGS[cls] for cls in error.__mro__ if cls in _SLUGS), "failed")


def details_of(exc: Exception) -> ProblemDetails:
    """Return what a caller may see of an error: at most the error's own text, and nothing of an unexpected error."""
    slug = slug_of(type(exc))
    problem_type, detail = PROBLEM_TYPES[slug], _FIXED_DETAILS.get(slug) or str(exc) or PROBLEM_TYPES[slug].meaning
    return replace(ProblemDetails(type=problem_type, detail=detail), **_particulars(exc))


def _particulars(exc: Exception) -> dict[str, Any]:
    """Return the members of `ProblemDetails` that depend on the error instance."""
    particulars: dict[str, Any] = {}
    match exc:
        case BadRequest(faults=faults):
            particulars = {"detail": _count_of(faults), "errors": tuple(faults)}
        case Unauthenticated():  # RFC 6750, section 3: no error code where there was no credential
            error = b', error="invalid_token"' if exc.presented else b""
            particulars = {
                "detail": _UNKNOWN_CREDENTIAL if exc.presented else _NO_CREDENTIAL,
                "headers": ((b"www-authenticate", b'Bearer realm="taskgate"' + error),),
            }
        case StreamTooLong():
            particulars = {"bound": exc.bound}
        case KeysUnavailable() | StoreUnavailable():
            particulars = {"retry_after_s": UNAVAILABLE_RETRY_S}
        case WaitTooLong():
            estimate_s = round(exc.estimate_s, 3) if math.isfinite(exc.estimate_s) else None
            particulars = {"retry_after_s": exc.retry_after_s, "place": exc.place, "estimate_s": estimate_s}
        case LineFull() | TooManyWatchers():
            particulars = {"retry_after_s": exc.retry_after_s, "bound": exc.bound}
        case RangeTooWide():
            particulars = {"bound": exc.bound, "total": exc.total}
        case Refused():
            particulars = {"retry_after_s": exc.retry_after_s}
        case UpstreamHTTPStatus(retry_after_s=float(wait_s)):
            particulars = {"retry_after_s": wait_s}
        case UpstreamRefused():
            particulars = {"upstream_code": exc.code, "upstream_text": exc.text}
    match exc:
        case CallsStopped():
            particulars |= {"detail": exc.advice or str(exc), "retry_after_s": exc.stopped_for_s}
        case Throttled():
            particulars |= {"retry_after_s": THROTTLED_RETRY_S}
    return particulars


def details_of_status(status: int) -> ProblemDetails:
    """Return the details of a bare HTTP status."""
    problem_type = next((each for each in PROBLEM_TYPES.values() if each.status == status and each.is_http), None)
    if problem_type is None:
        phrase = HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else "Refused"
        problem_type = ProblemType(slug="", title=phrase, status=status, meaning="", remedy="", is_http=True)
    fixed = _BARE_DETAILS.get(status) or _FIXED_DETAILS.get(problem_type.slug)
    return ProblemDetails(
        type=problem_type,
        detail=fixed or problem_type.meaning or problem_type.title,
        retry_after_s=UNAVAILABLE_RETRY_S if status == 503 else None,
    )


def problem_of(details: ProblemDetails, *, request_id: str) -> Problem:
    """Return the problem as a value."""
    problem_type = details.type
    return Problem(
        type=f"/problems/{problem_type.slug}" if problem_type.slug else "about:blank",
        title=problem_type.title,
        status=problem_type.status,
        detail=details.detail,
        instance=f"urn:taskgate:request:{request_id}",
        request_id=request_id,
        errors=details.errors,
        place=details.place,
        estimate_seconds=details.estimate_s,
        bound=details.bound,
        total=details.total,
        upstream_code=details.upstream_code,
        upstream_text=details.upstream_text,
    )


def problem_response(details: ProblemDetails, *, request_id: str, wait_applied_s: int | None = None) -> Response:
    """Return the problem as a response that must not be stored."""
    problem = problem_of(details, request_id=request_id)
    headers: list[Header] = [(b"content-type", PROBLEM_JSON), (b"cache-control", b"no-store"), *details.headers]
    if details.retry_after_s is not None:
        headers.append((b"retry-after", str(retry_after(details.retry_after_s)).encode()))
    if wait_applied_s is not None:
        headers.append((b"preference-applied", b"wait=%d" % wait_applied_s))
    return Response(status=problem.status, headers=tuple(headers), body=msgspec.json.encode(problem))


def retry_after(seconds: float) -> int:
    """Return whole seconds for `Retry-After` (RFC 9110, 10.2.3): rounded up, at least 1, at most a day."""
    if not seconds < 86_400:  # infinity and NaN too
        return 86_400
    return max(math.ceil(seconds), 1)


def _count_of(faults: tuple[Fault, ...]) -> str:
    return "One parameter is invalid." if len(faults) == 1 else f"{len(faults)} faults in the parameters."
