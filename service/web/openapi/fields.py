"""Descriptions of the request and response header fields, shared by all operations."""

from collections.abc import Iterable

from service.web.headers.ratelimit import POLICY, STATE
from service.web.openapi.schemas import Json
from service.web.parameters import Example


def request_fields() -> Json:
    """Return the request header parameters by component name."""
    return {
        "AcceptEncoding": _parameter(
            "Accept-Encoding",
            "Content codings that the caller can read (RFC 9110, 12.5.3): gzip and zstd; streams by gzip alone, "
            "each block flushed. Small answers are sent as they are.",
            ("gzip", "compressed with gzip"),
        ),
        "CacheControl": _parameter(
            "Cache-Control",
            "How fresh the answer must be (RFC 9111, RFC 5861). `no-cache`, `max-age` and `min-fresh` bound its age: "
            "nothing older is served, whatever fails, unless `max-stale` or `stale-if-error` in the same request "
            "allows it. A caller that may not force calls has these three ignored, and `Cache-Status` says so. "
            "`only-if-cached` makes no call; as answers are shared, it also says whether another caller of the app "
            "asked the same lately. Malformed directives are ignored.",
            ("max-age=5", "nothing older than five seconds, or a problem"),
            (
                "no-cache, stale-if-error=300",
                "a new call; if it fails, an answer up to five minutes past its freshness",
            ),
            ("max-stale=300", "an answer up to five minutes past its freshness will do"),
            ("only-if-cached", "only what is stored; 504 otherwise"),
        ),
        "IfNoneMatch": _parameter(
            "If-None-Match",
            "Entity tags of answers that the caller holds; 304 without a body while one of them still matches. "
            "`If-Match`, `If-Modified-Since` and `If-Unmodified-Since` are ignored: nothing here can be written, and a "
            "list has no time of its last change.",
            ('W/"5b1851514c7adebff89685879cfc0b2d"', "the tag of an earlier answer"),
        ),
        "LastEventID": _parameter(
            "Last-Event-ID",
            "The `id` of the last event that an earlier watch has received; clients of server-sent events send it when "
            "they reconnect. Watches alone heed it.",
            ("536349a9-7ed14eeec6e0cc14", "what has changed since that event"),
        ),
        "Prefer": _parameter(
            "Prefer",
            "`wait=SECONDS` tells how long the caller will wait for its turn (RFC 7240). `wait=0` takes only what is "
            "there. Bounded by what the caller may; `Preference-Applied` tells what was applied.",
            ("wait=20", "wait up to twenty seconds"),
            ("wait=0", "don't wait at all"),
        ),
        "RequestId": _parameter(
            "X-Request-Id",
            "An id for this request, of 1 to 128 letters, digits, dots, hyphens and underscores; else one is made.",
            ("order-7f3c", "an id of the caller's"),
        ),
    }


def answer_fields() -> Json:
    """Return the response header fields by component name."""
    text: Json = {"type": "string"}
    seconds: Json = {"type": "integer", "minimum": 0}
    return {
        "Age": _field("Seconds since the upstream was asked.", seconds, 4),
        "CacheControl": _field(
            "For how long the answer is fresh, counted from its fetch: subtract `Age`; `no-store` where it is not.",
            text,
            "private, max-age=15",
            always=True,
        ),
        "CacheStatus": _field(
            "Where the answer came from (RFC 9211): `hit`, or why the upstream was called (`fwd`: `miss`, `stale` or "
            "`request`), whether that call served others too (`collapsed`), how many seconds the answer stays fresh "
            "(`ttl`, negative once stale), and in `detail` why an older answer was given (`renewing`, `error`, `wait`) "
            "or that the caller may not force calls (`force-denied`).",
            text,
            "taskgate; hit; ttl=11",
        ),
        "ContentEncoding": _field("How the body is compressed, where the caller accepts it.", text, "gzip"),
        "ContentSecurityPolicy": _field(
            "What a browser that shows this may load: nothing of anywhere else.", text, "default-src 'none'"
        ),
        "ContentTypeOptions": _field("Browsers take the content type as it is told.", text, "nosniff"),
        "ETag": _field(
            "Changes when the listed tasks, the total or the slice change; not when the same list is fetched again. "
            "Of a page it is weak, and the same on all replicas and in all content codings.",
            text,
            'W/"5b1851514c7adebff89685879cfc0b2d"',
        ),
        "Link": _field(
            "`first`, `prev`, `next` and `last` slice (RFC 8288), with the caller's own parameters.",
            text,
            '</tasks?app=shop&offset=20>; rel="next"',
        ),
        "PreferenceApplied": _field("The patience that was applied (RFC 7240).", text, "wait=20"),
        "RateLimit": _field(f"What is left of the budget, and when more is free ({STATE}).", text, '"shop";r=3;t=1'),
        "RateLimitPolicy": _field(f"The app's budget: quota and window in seconds ({POLICY}).", text, '"shop";q=5;w=1'),
        "ReferrerPolicy": _field("Browsers don't tell others of this address.", text, "no-referrer"),
        "RequestId": _field("The request's id: the caller's own, or one made for it.", text, "order-7f3c", always=True),
        "RetryAfter": _field("Seconds after which to try again.", seconds, 3),
        "ServerTiming": _field(
            "Milliseconds in line and with the upstream.", text, "line;dur=212.0, upstream;dur=83.1"
        ),
        "TotalCount": _field(
            "How many tasks match, as a stream's first block says; of streams alone, unless read in parts.",
            {"type": "integer", "minimum": 0},
            2000,
        ),
        "Vary": _field("What else chooses the answer.", text, "Accept, Accept-Encoding, Authorization"),
        "WWWAuthenticate": _field("How to authenticate.", text, 'Bearer realm="taskgate"'),
    }


BUDGET = ("RateLimitPolicy", "RateLimit")

ANSWER_NAMES = {
    "Age": "Age",
    "CacheControl": "Cache-Control",
    "CacheStatus": "Cache-Status",
    "ContentEncoding": "Content-Encoding",
    "ContentSecurityPolicy": "Content-Security-Policy",
    "ContentTypeOptions": "X-Content-Type-Options",
    "ETag": "ETag",
    "Link": "Link",
    "PreferenceApplied": "Preference-Applied",
    "RateLimit": STATE,
    "RateLimitPolicy": POLICY,
    "ReferrerPolicy": "Referrer-Policy",
    "RequestId": "X-Request-Id",
    "RetryAfter": "Retry-After",
    "ServerTiming": "Server-Timing",
    "TotalCount": "X-Total-Count",
    "Vary": "Vary",
    "WWWAuthenticate": "WWW-Authenticate",
}
"""Field names as sent, by component name."""


def refer_fields(*names: str) -> Json:
    """Return references to these response fields and to the fields that every response has."""
    every = ("CacheControl", "ContentTypeOptions", "RequestId")
    return {ANSWER_NAMES[name]: {"$ref": f"#/components/headers/{name}"} for name in (*names, *every)}


def with_examples(description: str, examples: Iterable[Example]) -> str:
    """Return the description followed by its examples, each with its meaning.

    Examples appear here and in the schema, not in the parameter's `examples`: Swagger UI would send the first of those.
    """
    told = ", ".join(f"`{example.value}` ({example.summary})" for example in examples)
    return f"{description} For example {told}."


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
