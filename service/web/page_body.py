"""The body of a page, and the header fields that do not depend on the time."""

from functools import lru_cache

import msgspec

from service.model.pages import Page
from service.model.queries import rfc3339
from service.web.cacheable_response import Rendered
from service.web.headers.conditional import weak_tag
from service.web.headers.link import links

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


def render_page(page: Page, *, path: str, link_query: str) -> Rendered:
    """Return the body, joined from the stored bytes of the tasks, and the header fields derived from it."""
    envelope, etag = _envelope(page), _etag(page)
    return Rendered(
        body=b"".join((envelope, page.body, b"]}")),
        etag=etag,
        key=(envelope, etag),
        fields=((b"link", links(path, link_query, page.slice, total=page.total)),),
    )


def _etag(page: Page) -> bytes:
    """Return a weak entity tag (RFC 9110, 8.8.1) over total, slice and tasks.

    The body also contains the time of the fetch and the resolved ends of relative ranges, which change with each
    renewal although the list is equivalent to callers; the tag ignores them. It is the same on all replicas, across
    restarts, and in every content coding.
    """
    return weak_tag(b"%d,%d,%d," % (page.total, page.slice.offset, page.slice.limit), page.body)


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
