"""All problem types with their titles, meanings and remedies. `/problems` shows this table."""

from collections.abc import Mapping

import msgspec


class ProblemType(msgspec.Struct, frozen=True, kw_only=True):
    """A problem type. `is_http` marks types that may represent a bare HTTP status."""

    slug: str
    title: str
    status: int
    meaning: str
    remedy: str
    is_http: bool = False


_ALL = (
    ProblemType(
        slug="bad-request",
        title="Invalid request parameters",
        status=400,
        meaning="One or more parameters are unknown, repeated, empty, malformed or out of bounds. The member "
        "'errors' lists every fault with the parameter's name.",
        remedy="Correct the listed parameters. The same request will always be rejected.",
        is_http=True,
    ),
    ProblemType(
        slug="unauthenticated",
        title="Missing or unknown API key",
        status=401,
        meaning="The request carries no credential, or one that is unknown or expired; 'detail' says which.",
        remedy="Send 'Authorization: Bearer KEY' with your service's key, or with its service account's token for "
        "this gateway.",
        is_http=True,
    ),
    ProblemType(
        slug="keys-unavailable",
        title="Tokens can't be verified at the moment",
        status=503,
        meaning="The request carries a service account's token, but the keys to verify it could not be fetched yet.",
        remedy="Retry after the time given in Retry-After.",
    ),
    ProblemType(
        slug="not-allowed",
        title="Permission denied",
        status=403,
        meaning="The caller is known but lacks the right to do this.",
        remedy="Ask the operators of this gateway for access.",
        is_http=True,
    ),
    ProblemType(
        slug="not-found",
        title="No such resource",
        status=404,
        meaning="No resource has this path.",
        remedy="See /docs for the paths that exist.",
        is_http=True,
    ),
    ProblemType(
        slug="unknown-app",
        title="No such app",
        status=404,
        meaning="The app does not exist, or this caller may not read it; the response is the same for both. Operators "
        "get 403 for an app that exists.",
        remedy="GET /apps lists the apps that your key may read.",
    ),
    ProblemType(
        slug="unknown-task",
        title="No such task",
        status=404,
        meaning="According to the upstream, the app has no task with this id. This answer is cached for a short while, "
        "like tasks.",
        remedy="Check the id and the app. If the task was created a moment ago, retry with 'Cache-Control: no-cache'.",
    ),
    ProblemType(
        slug="method-not-allowed",
        title="Method not allowed",
        status=405,
        meaning="The resource exists but does not support this method.",
        remedy="Use one of the methods listed in the Allow field.",
        is_http=True,
    ),
    ProblemType(
        slug="not-acceptable",
        title="No acceptable representation",
        status=406,
        meaning="The resource has none of the representations that the Accept field allows.",
        remedy="Accept 'application/json' for a page, or 'application/x-ndjson' for the whole list as a stream.",
        is_http=True,
    ),
    ProblemType(
        slug="content-too-large",
        title="Request bodies are not accepted",
        status=413,
        meaning="The request carries a body. Everything a request needs is in its parameters.",
        remedy="Send the request without a body.",
        is_http=True,
    ),
    ProblemType(
        slug="stream-too-long",
        title="The list is longer than a stream may be",
        status=413,
        meaning="The stream has covered the maximum number of tasks ('bound'), and the list continues.",
        remedy="Continue at 'next', or request a shorter range.",
    ),
    ProblemType(
        slug="uri-too-long",
        title="The address is too long",
        status=414,
        meaning="Path and parameters together exceed 8 KiB.",
        remedy="Shorten the parameters.",
        is_http=True,
    ),
    ProblemType(
        slug="query-refused",
        title="The upstream rejected these parameters",
        status=422,
        meaning="The parameters are well formed, but the upstream does not accept them, for example because the "
        "range is longer than it allows. Its code and text are in 'upstream_code' and 'upstream_text'.",
        remedy="Change the parameters, most likely to a shorter range. The rejection is cached for a while.",
    ),
    ProblemType(
        slug="range-too-wide",
        title="The range holds too many tasks",
        status=422,
        meaning="Filtered pages and watches collect the whole range, and this one holds more tasks ('total') than may "
        "be collected for one request ('bound').",
        remedy="Narrow the range with 'since' and 'until' or the list with 'q', or read it as a stream "
        "('Accept: application/x-ndjson').",
    ),
    ProblemType(
        slug="line-full",
        title="Too many requests from this caller are waiting",
        status=429,
        meaning="The caller already has the maximum number of requests waiting for a turn ('bound').",
        remedy="Wait for responses before sending more requests, and retry after Retry-After.",
    ),
    ProblemType(
        slug="too-many-watchers",
        title="Too many lists are being watched",
        status=429,
        meaning="This caller or this replica has the maximum number of open watches, or the lists watched on this "
        "replica use all the memory allowed for them; 'bound' is the limit.",
        remedy="Share one watch among consumers of the same list, close watches that are no longer needed, and retry "
        "after Retry-After.",
    ),
    ProblemType(
        slug="headers-too-large",
        title="The header fields are too large",
        status=431,
        meaning="All header fields together exceed 16 KiB.",
        remedy="Send fewer or shorter fields; cookies are ignored.",
        is_http=True,
    ),
    ProblemType(
        slug="failed",
        title="Internal error",
        status=500,
        meaning="An unexpected error in this gateway; its details are logged under the request's id.",
        remedy="Retry later; report the request id to the operators if it persists.",
        is_http=True,
    ),
    ProblemType(
        slug="upstream-failed",
        title="The upstream call failed",
        status=502,
        meaning="The upstream could not be called, and no stored answer may be served instead.",
        remedy="Retry later. 'Cache-Control: max-stale' accepts older answers.",
    ),
    ProblemType(
        slug="upstream-unreachable",
        title="The upstream can't be reached",
        status=502,
        meaning="No connection to the upstream could be made.",
        remedy="Retry later. 'Cache-Control: max-stale' accepts older answers.",
    ),
    ProblemType(
        slug="upstream-broken",
        title="The upstream's answer can't be read",
        status=502,
        meaning="The upstream's answer does not have its documented form.",
        remedy="Retry later; report it to the operators if it persists.",
    ),
    ProblemType(
        slug="upstream-http-status",
        title="The upstream answered with an HTTP error",
        status=502,
        meaning="The upstream, or a proxy in front of it, answered with an HTTP status other than 200.",
        remedy="Retry later; report it to the operators if it persists.",
    ),
    ProblemType(
        slug="upstream-refused",
        title="The upstream rejected the call",
        status=502,
        meaning="The upstream answered with an error code; it is in 'upstream_code', its text in 'upstream_text'.",
        remedy="Retry later; report the code to the operators if it persists.",
    ),
    ProblemType(
        slug="calls-stopped",
        title="Calls for this app are stopped",
        status=502,
        meaning="The upstream rejects this gateway's credentials, account or address for this app. No calls are made "
        "for a while, because none would succeed.",
        remedy="Operators must correct the configuration; 'detail' says what. Callers can only retry later.",
    ),
    ProblemType(
        slug="throttled",
        title="The upstream asked for a pause",
        status=503,
        meaning="The upstream reports that it was called too often. All replicas pause their calls.",
        remedy="Retry after Retry-After.",
    ),
    ProblemType(
        slug="wait-too-long",
        title="The expected wait exceeds the caller's patience",
        status=503,
        meaning="Calls to the upstream are limited, and the caller's turn would not come, or did not come, within its "
        "patience. 'place' is its place in line, 'estimate_seconds' the expected further wait; 'detail' says how long "
        "the request waited and how much patience was lacking.",
        remedy="Retry after Retry-After, wait longer with 'Prefer: wait=SECONDS', or accept an older answer with "
        "'Cache-Control: max-stale'.",
    ),
    ProblemType(
        slug="no-fetch-now",
        title="The upstream can't be called at the moment",
        status=503,
        meaning="The upstream can't be called for this caller at the moment.",
        remedy="Retry after Retry-After.",
    ),
    ProblemType(
        slug="shutting-down",
        title="This replica is shutting down",
        status=503,
        meaning="The replica that received the request is shutting down and has given up its places in line.",
        remedy="Retry after Retry-After: another replica will answer.",
    ),
    ProblemType(
        slug="store-unavailable",
        title="The shared store is unavailable",
        status=503,
        meaning="Redis can't be reached, and without it the upstream is not called; no stored answer may be served "
        "instead.",
        remedy="Retry after Retry-After. 'Cache-Control: max-stale' accepts older answers.",
    ),
    ProblemType(
        slug="nothing-stored",
        title="No stored answer satisfies the request",
        status=504,
        meaning="The caller accepts only stored answers ('Cache-Control: only-if-cached' or 'Prefer: wait=0'), and "
        "none satisfies the request.",
        remedy="Omit 'only-if-cached' and allow for a wait, or accept older answers with 'max-stale'.",
    ),
    ProblemType(
        slug="upstream-timeout",
        title="The upstream did not answer in time",
        status=504,
        meaning="The call was made, but no answer came within its timeout.",
        remedy="Retry later. 'Cache-Control: max-stale' accepts older answers.",
    ),
)

PROBLEM_TYPES: Mapping[str, ProblemType] = {problem_type.slug: problem_type for problem_type in _ALL}
