"""Descriptions of the request and response header fields, shared by all operations."""

from collections.abc import Iterable

from service.web.headers.ratelimit import RATELIMIT, RATELIMIT_POLICY
from service.web.openapi.schemas import Json
from service.web.parameters import Example


def request_fields() -> Json:
    """Return the request header parameters by component name."""
    return {
        "AcceptEncoding": _parameter(
            "Accept-Encoding",
            "Content codings that the caller accepts (RFC 9110, 12.5.3): gzip and zstd; for streams only gzip, "
            "flushed after each block. Small answers are not compressed.",
            ("gzip", "compressed with gzip"),
        ),
        "CacheControl": _parameter(
            "Cache-Control",
            "How fresh the answer must be (RFC 9111, RFC 5861). `no-cache`, `max-age` and `min-fresh` limit its age: "
            "nothing older is served, even after a failure, unless `max-stale` or `stale-if-error` in the same "
            "request allows it. For a caller without permission to force calls these three are ignored, and "
            "`Cache-Status` says so. `only-if-cached` makes no call; since answers are shared, it also reveals "
            "whether another caller of the app recently sent the same request. Malformed directives are ignored.",
            ("max-age=5", "nothing older than five seconds, or a problem"),
            (
                "no-cache, stale-if-error=300",
                "a new call; if it fails, an answer up to five minutes past its freshness",
            ),
            ("max-stale=300", "an answer up to five minutes past its freshness is acceptable"),
            ("only-if-cached", "a stored answer, else 504"),
        ),
        "IfNoneMatch": _parameter(
            "If-None-Match",
            "Entity tags of responses that the caller has; 304 without a body if one of them still matches. "
            "`If-Match`, `If-Modified-Since` and `If-Unmodified-Since` are ignored: no resource can be written, and "
            "a list has no modification time.",
            ('W/"5b1851514c7adebff89685879cfc0b2d"', "the tag of an earlier answer"),
        ),
        "LastEventID": _parameter(
            "Last-Event-ID",
            "The `id` of the last event received by an earlier watch; clients of server-sent events send it when they "
            "reconnect. Ignored except by watches.",
            ("536349a9-7ed14eeec6e0cc14", "the changes since that event"),
        ),
        "Prefer": _parameter(
            "Prefer",
            "`wait=SECONDS` is how long the caller is willing to wait for its turn (RFC 7240). `wait=0` accepts only "
            "stored answers. Limited to the caller's maximum; `Preference-Applied` contains the applied value.",
            ("wait=20", "wait up to twenty seconds"),
            ("wait=0", "don't wait at all"),
        ),
        "RequestId": _parameter(
            "X-Request-Id",
            "An id for this request: 1 to 128 letters, digits, dots, hyphens and underscores. Without one, an id is "
            "generated.",
            ("order-7f3c", "an id chosen by the caller"),
        ),
    }


def response_fields() -> Json:
    """Return the response header fields by component name."""
    text: Json = {"type": "string"}
    seconds: Json = {"type": "integer", "minimum": 0}
    return {
        "Age": _field("Seconds since the fetch from the upstream.", seconds, 4),
        "CacheControl": _field(
            "How long the answer is fresh, counted from its fetch: subtract `Age`. `no-store` if it must not "
            "be stored.",
            text,
            "private, max-age=15",
            always=True,
        ),
        "CacheStatus": _field(
            "Where the answer came from (RFC 9211): `hit`, or why the upstream was called (`fwd`: `miss`, `stale` or "
            "`request`), whether other requests shared that call (`collapsed`), how many seconds the answer stays "
            "fresh (`ttl`, negative once stale), and in `detail` why a stale answer was served (`renewing`, `error`, "
            "`wait`) or that the caller may not force calls (`force-denied`).",
            text,
            "taskgate; hit; ttl=11",
        ),
        "ContentEncoding": _field("The compression of the body, if the caller accepts it.", text, "gzip"),
        "ContentSecurityPolicy": _field(
            "What a browser may load for this document: nothing from other origins.", text, "default-src 'none'"
        ),
        "ContentTypeOptions": _field("Browsers must not guess another content type.", text, "nosniff"),
        "ETag": _field(
            "Changes when the listed tasks, the total or the slice change, but not when the same list is refetched. "
            "For a page it is weak, and the same on all replicas and for all content codings.",
            text,
            'W/"5b1851514c7adebff89685879cfc0b2d"',
        ),
        "Link": _field(
            "The `first`, `prev`, `next` and `last` slice (RFC 8288), with the caller's own parameters.",
            text,
            '</tasks?app=shop&offset=20>; rel="next"',
        ),
        "PreferenceApplied": _field("The patience that was applied (RFC 7240).", text, "wait=20"),
        "RateLimit": _field(
            f"What is left of the budget, and when more becomes free ({RATELIMIT}).", text, '"shop";r=3;t=1'
        ),
        "RateLimitPolicy": _field(
            f"A budget: quota and window in seconds ({RATELIMIT_POLICY}), named after the app; the name for single "
            "tasks ends in `/get`.",
            text,
            '"shop";q=5;w=1',
        ),
        "ReferrerPolicy": _field("Browsers must not send this address to other sites.", text, "no-referrer"),
        "RequestId": _field("The request's id: the caller's own, or a generated one.", text, "order-7f3c", always=True),
        "RetryAfter": _field("Seconds to wait before a retry.", seconds, 3),
        "ServerTiming": _field(
            "Milliseconds spent in line and on the upstream call.", text, "line;dur=212.0, upstream;dur=83.1"
        ),
        "TotalCount": _field(
            "How many tasks match, according to a stream's first block; only for streams that are not read in parts.",
            {"type": "integer", "minimum": 0},
            2000,
        ),
        "Vary": _field(
            "The request fields that the answer depends on.", text, "Accept, Accept-Encoding, Authorization"
        ),
        "WWWAuthenticate": _field("How to authenticate.", text, 'Bearer realm="taskgate"'),
    }


BUDGET = ("RateLimitPolicy", "RateLimit")

RESPONSE_FIELD_NAMES = {
    "Age": "Age",
    "CacheControl": "Cache-Control",
    "CacheStatus": "Cache-Status",
    "ContentEncoding": "Content-Encoding",
    "ContentSecurityPolicy": "Content-Security-Policy",
    "ContentTypeOptions": "X-Content-Type-Options",
    "ETag": "ETag",
    "Link": "Link",
    "PreferenceApplied": "Preference-Applied",
    "RateLimit": RATELIMIT,
    "RateLimitPolicy": RATELIMIT_POLICY,
    "ReferrerPolicy": "Referrer-Policy",
    "RequestId": "X-Request-Id",
    "RetryAfter": "Retry-After",
    "ServerTiming": "Server-Timing",
    "TotalCount": "X-Total-Count",
    "Vary": "Vary",
    "WWWAuthenticate": "WWW-Authenticate",
}
"""Field names as sent, by component name."""


def field_refs(*names: str) -> Json:
    """Return references to these response fields and to the fields that every response has."""
    every = ("CacheControl", "ContentTypeOptions", "RequestId")
    return {RESPONSE_FIELD_NAMES[name]: {"$ref": f"#/components/headers/{name}"} for name in (*names, *every)}


def with_examples(description: str, examples: Iterable[Example]) -> str:
    """Return the description followed by its examples, each with its meaning.

    Examples appear here and in the schema, not in the parameter's `examples`: Swagger UI would send the first of those.
    """
    listed = ", ".join(f"`{example.value}` ({example.summary})" for example in examples)
    return f"{description} For example {listed}."


def _parameter(name: str, description: str, *examples: tuple[str, str]) -> Json:
    given = [Example(value=value, summary=summary) for value, summary in examples]
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": with_examples(description, given),
        "schema": {"type": "string", "examples": [example.value for example in given]},
    }


def _field(description: str, schema: Json, example: str | int, *, always: bool = False) -> Json:
    required = {"required": True} if always else {}
    return {"description": description, **required, "schema": schema, "example": example}
