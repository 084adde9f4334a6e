"""The answer of `GET /tasks`: its body, made once for a page, and the fields that depend on the moment."""

import hashlib
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

import msgspec

from service.model.freshness import CacheDirectives, StaleReason
from service.model.pages import Page, Source
from service.model.queries import rfc3339
from service.web.answers import JSON, Answer, Header
from service.web.headers.conditional import holds
from service.web.headers.encoding import Encodings, etag_for
from service.web.headers.link import links
from service.web.headers.ratelimit import ratelimit

VARY = b"Accept, Accept-Encoding, Authorization"
"""`Prefer: wait` chooses no other representation, so it is not named. `Authorization` is: it may choose the app."""

_encoder = msgspec.json.Encoder()
_instant = lru_cache(maxsize=1024)(rfc3339)


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """All of the body but its tasks, in the order of the contract."""

    app: str
    since: str
    until: str
    sort: str
    q: str | None
    total: int
    offset: int
    limit: int
    fetched_at: str
    missing: int


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """What of an answer stays the same for as long as its page does: the same on all replicas."""

    body: bytes
    etag: bytes
    last_modified: bytes
    link: bytes


def render(page: Page, *, path: str, query_string: bytes) -> Rendered:
    """The body, joined from the stored bytes of the tasks, and the fields that follow from it."""
    body = body_of(page)
    return Rendered(
        body=body,
        etag=b'"%s"' % hashlib.blake2b(body, digest_size=16).hexdigest().encode(),
        last_modified=_http_date(page.fetched_at_ms // 1000),
        link=links(path, query_string, page.slice, total=page.total),
    )


def body_of(page: Page) -> bytes:
    """The JSON text of a page."""
    query = page.query
    envelope = Envelope(
        app=query.app,
        since=_instant(page.range.since_s),
        until=_instant(page.range.until_s),
        sort=query.sort.value,
        q=query.keyword,
        total=page.total,
        offset=page.slice.offset,
        limit=page.slice.limit,
        fetched_at=_instant(page.fetched_at_ms // 1000),
        missing=page.missing,
    )
    return b"".join((_encoder.encode(envelope)[:-1], b',"tasks":[', page.body, b"]}"))


def page_answer(
    page: Page,
    rendered: Rendered,
    *,
    directives: CacheDirectives,
    wait_applied_s: int | None,
    if_none_match: bytes | None,
    accept_encoding: bytes | None,
    encodings: Encodings,
    now_s: float,
) -> Answer:
    """The answer at this moment, in a coding that the caller takes: 304 without a body where it holds that already."""
    coding = encodings.choose(accept_encoding, body_bytes=len(rendered.body))
    etag = etag_for(rendered.etag, coding)
    age_s = max(int(now_s - page.fetched_at_ms / 1000), 0)
    lifetime_s = int(page.lifetime_s)
    fields: list[Header] = [
        (b"etag", etag),
        (b"cache-control", b"private, max-age=%d" % lifetime_s),
        (b"age", b"%d" % age_s),
        (b"vary", VARY),
        (b"cache-status", _cache_status(page, directives, ttl_s=lifetime_s - age_s)),
    ]
    if wait_applied_s is not None:
        fields.append((b"preference-applied", b"wait=%d" % wait_applied_s))
    if page.waited_s or page.upstream_s:
        timing = f"line;dur={page.waited_s * 1000:.1f}, upstream;dur={page.upstream_s * 1000:.1f}"
        fields.append((b"server-timing", timing.encode()))
    if page.budget is not None:
        fields.extend(ratelimit(page.query.app, page.budget))
    if holds(if_none_match, etag):
        return Answer(status=304, headers=tuple(fields), body=b"")
    fields.append((b"last-modified", rendered.last_modified))
    fields.append((b"link", rendered.link))
    fields.append((b"content-type", JSON))
    body = rendered.body
    if coding is not None:
        fields.append((b"content-encoding", coding.encode()))
        body = encodings.encode(body, etag=etag, coding=coding)
    return Answer(status=200, headers=tuple(fields), body=body)


def _cache_status(page: Page, directives: CacheDirectives, *, ttl_s: int) -> bytes:
    """RFC 9211. `miss` also stands for a stored block that could not be used: a page doesn't tell the two apart."""
    match page.source:
        case Source.HIT:
            return b"taskgate; hit; ttl=%d" % ttl_s
        case Source.STALE:
            reason = page.stale_reason or StaleReason.RENEWING
            how = b"fwd=stale" if reason is StaleReason.ERROR else b"hit"
            return b"taskgate; %s; ttl=%d; detail=%s" % (how, ttl_s, reason.value.encode())
        case Source.JOINED:
            return b"taskgate; fwd=%s; ttl=%d; stored; collapsed" % (_why_forwarded(directives), ttl_s)
    return b"taskgate; fwd=%s; ttl=%d; stored" % (_why_forwarded(directives), ttl_s)


def _why_forwarded(directives: CacheDirectives) -> bytes:
    steered = directives.no_cache or directives.max_age_s is not None or directives.min_fresh_s is not None
    return b"request" if steered else b"miss"


@lru_cache(maxsize=1024)
def _http_date(epoch_s: int) -> bytes:
    return format_datetime(datetime.fromtimestamp(epoch_s, tz=UTC), usegmt=True).encode()
