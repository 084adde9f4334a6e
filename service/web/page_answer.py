"""The response of `GET /tasks`: the body, rendered once for a page, and the header fields that depend on the time."""

import hashlib
from functools import lru_cache

import msgspec

from service.model.freshness import CacheDirectives
from service.model.origin import FetchCost
from service.model.pages import Page
from service.model.queries import rfc3339
from service.web.answers import JSON, Answer, Header
from service.web.headers.cache_status import cache_status
from service.web.headers.conditional import holds
from service.web.headers.encoding import Encodings
from service.web.headers.link import links
from service.web.headers.ratelimit import ratelimit

VARY = b"Accept, Accept-Encoding, Authorization"
"""`Prefer` is not listed: `wait` never selects another representation. `Authorization` may select the app."""

_encoder = msgspec.json.Encoder()
_instant = lru_cache(maxsize=1024)(rfc3339)


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """All of the body but its tasks, in the order of the contract."""

    app: str
    since: str
    until: str
    sort: str
    q: str | None
    status: tuple[str, ...]
    type: tuple[str, ...]
    total: int
    offset: int
    limit: int
    fetched_at: str
    consistent: bool
    missing: int


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The time-independent part of a response. Keys are equal exactly if the bodies are."""

    body: bytes
    etag: bytes
    key: tuple[bytes, bytes]
    link: bytes


def render(page: Page, *, path: str, query_string: bytes) -> Rendered:
    """Return the body, joined from the stored bytes of the tasks, and the header fields derived from it."""
    envelope, etag = _envelope(page), etag_of(page)
    return Rendered(
        body=b"".join((envelope, page.body, b"]}")),
        etag=etag,
        key=(envelope, etag),
        link=links(path, query_string, page.slice, total=page.total),
    )


def etag_of(page: Page) -> bytes:
    """Return a weak entity tag (RFC 9110, 8.8.1) over total, slice and tasks.

    The body also contains the time of the fetch and the resolved ends of relative ranges, which change with each
    renewal although the list is equivalent to callers; the tag ignores them. It is the same on all replicas, across
    restarts, and in every content coding.
    """
    digest = hashlib.sha256(b"%d,%d,%d," % (page.total, page.slice.offset, page.slice.limit))
    digest.update(page.body)
    return b'W/"%s"' % digest.hexdigest()[:32].encode()


def body_of(page: Page) -> bytes:
    """Return the JSON text of a page."""
    return b"".join((_envelope(page), page.body, b"]}"))


def _envelope(page: Page) -> bytes:
    """Return the JSON text up to the first task."""
    query = page.query
    envelope = Envelope(
        app=query.app,
        since=_instant(page.range.since_s),
        until=_instant(page.range.until_s),
        sort=query.sort.value,
        q=query.keyword,
        status=page.only.statuses,
        type=page.only.types,
        total=page.total,
        offset=page.slice.offset,
        limit=page.slice.limit,
        fetched_at=_instant(page.fetched_at_ms // 1000),
        consistent=page.consistent,
        missing=page.missing,
    )
    return _encoder.encode(envelope)[:-1] + b',"tasks":['


def page_answer(
    page: Page,
    rendered: Rendered,
    *,
    directives: CacheDirectives,
    cost: FetchCost,
    wait_applied_s: int | None,
    if_none_match: bytes | None,
    accept_encoding: bytes | None,
    encodings: Encodings,
    now_s: float,
) -> Answer:
    """Return the response as of `now_s` in a coding that the caller accepts, or 304 if the caller has it already."""
    coding = encodings.choose(accept_encoding, body_bytes=len(rendered.body))
    age_s = max(int(now_s - page.fetched_at_ms / 1000), 0)
    lifetime_s = int(page.lifetime_s)
    fields: list[Header] = [
        (b"etag", rendered.etag),
        (b"cache-control", b"private, max-age=%d" % lifetime_s),
        (b"age", b"%d" % age_s),
        (b"vary", VARY),
        (b"cache-status", cache_status(page, directives, ttl_s=lifetime_s - age_s)),
    ]
    if wait_applied_s is not None:
        fields.append((b"preference-applied", b"wait=%d" % wait_applied_s))
    if cost.waited_s or cost.upstream_s:
        timing = f"line;dur={cost.waited_s * 1000:.1f}, upstream;dur={cost.upstream_s * 1000:.1f}"
        fields.append((b"server-timing", timing.encode()))
    if page.budget is not None:
        fields.extend(ratelimit(page.query.app, page.budget))
    if holds(if_none_match, rendered.etag):
        return Answer(status=304, headers=tuple(fields), body=b"")
    fields.append((b"link", rendered.link))
    fields.append((b"content-type", JSON))
    body = rendered.body
    if coding is not None:
        fields.append((b"content-encoding", coding.encode()))
        body = encodings.encode(body, key=rendered.key, coding=coding)
    return Answer(status=200, headers=tuple(fields), body=body)
