"""The response of `GET /tasks`: the body, rendered once for a page, and the header fields that depend on the time."""

import hashlib
from functools import lru_cache

import msgspec

from service.model.freshness import CacheDirectives
from service.model.origin import FetchCost
from service.model.pages import Page
from service.model.queries import rfc3339
from service.web.answers import JSON, Answer
from service.web.headers.conditional import holds
from service.web.headers.encoding import Encodings
from service.web.headers.link import links
from service.web.headers.obtained import obtained_fields

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
    fields = obtained_fields(
        page,
        app=page.query.app,
        etag=rendered.etag,
        directives=directives,
        cost=cost,
        wait_applied_s=wait_applied_s,
        now_s=now_s,
    )
    if holds(if_none_match, rendered.etag):
        return Answer(status=304, headers=fields, body=b"")
    headers = (*fields, (b"link", rendered.link), (b"content-type", JSON))
    if coding is None:
        return Answer(status=200, headers=headers, body=rendered.body)
    body = encodings.encode(rendered.body, key=rendered.key, coding=coding)
    return Answer(status=200, headers=(*headers, (b"content-encoding", coding.encode())), body=body)
