"""The header fields for an answer's age and how it was obtained."""

from service.model.freshness import CacheDirectives
from service.model.pages import Obtained
from service.observe.request import RequestContext
from service.web.headers.cache_status import cache_status
from service.web.headers.ratelimit import ratelimit
from service.web.responses import Header

VARY = b"Accept, Accept-Encoding, Authorization"
"""`Prefer` is not listed: `wait` never selects another representation. `Authorization` may select the app."""


def freshness_fields(
    obtained: Obtained,
    *,
    app: str,
    etag: bytes,
    directives: CacheDirectives,
    context: RequestContext,
    now_s: float,
) -> tuple[Header, ...]:
    """Return the fields as of `now_s`, for a 200 as for a 304."""
    age_s = max(int(now_s - obtained.fetched_at_ms / 1000), 0)
    lifetime_s = int(obtained.lifetime_s)
    fields: list[Header] = [
        (b"etag", etag),
        (b"cache-control", b"private, max-age=%d" % lifetime_s),
        (b"age", b"%d" % age_s),
        (b"vary", VARY),
        (b"cache-status", cache_status(obtained, directives, ttl_s=lifetime_s - age_s)),
    ]
    if context.wait_applied_s is not None:
        fields.append((b"preference-applied", b"wait=%d" % context.wait_applied_s))
    cost = context.cost
    if cost.waited_s or cost.upstream_s:
        timing = f"line;dur={cost.waited_s * 1000:.1f}, upstream;dur={cost.upstream_s * 1000:.1f}"
        fields.append((b"server-timing", timing.encode()))
    if obtained.budget is not None:
        fields.extend(ratelimit(app, obtained.budget))
    return tuple(fields)
