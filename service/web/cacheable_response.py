"""The response with a page or a task: its body, and the header fields that depend on the time."""

from collections.abc import Callable, Hashable
from typing import Any

import msgspec

from service.model.freshness import CacheDirectives
from service.model.pages import Obtained
from service.observe.request import RequestContext
from service.web.headers.conditional import matches_etag
from service.web.headers.encoding import Encodings
from service.web.headers.freshness import freshness_fields
from service.web.responses import JSON, Header, Response

CACHEABLE = "obtained"
"""The key under which a `CacheableResponse` stores itself in a scope's state."""


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The time-independent part of a response; `fields` are only those of a 200. Equal keys mean equal bodies."""

    body: bytes
    etag: bytes
    key: Hashable
    fields: tuple[Header, ...] = ()


class CacheableResponse(Response):
    """Sends a page or a task, and leaves itself in the scope's state for the response cache."""

    __slots__ = ("obtained",)

    def __init__(self, obtained: Obtained, *, status: int, headers: tuple[Header, ...], body: bytes = b"") -> None:
        super().__init__(status=status, headers=headers, body=body)
        self.obtained = obtained

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        """Send the response."""
        scope["state"][CACHEABLE] = self
        await super().__call__(scope, receive, send)


def cacheable_response(
    obtained: Obtained,
    rendered: Rendered,
    *,
    app: str,
    directives: CacheDirectives,
    context: RequestContext,
    encodings: Encodings,
    now_s: float,
) -> CacheableResponse:
    """Return the response as of `now_s` in a coding that the caller accepts, or 304 if the caller has it already."""
    fields = freshness_fields(
        obtained, app=app, etag=rendered.etag, directives=directives, context=context, now_s=now_s
    )
    if matches_etag(context.fields.get(b"if-none-match"), rendered.etag):
        return CacheableResponse(obtained, status=304, headers=fields)
    headers = (*fields, *rendered.fields, (b"content-type", JSON))
    coding = encodings.choose(context.fields.get(b"accept-encoding"), body_bytes=len(rendered.body))
    body = rendered.body
    if coding is not None:
        headers = (*headers, (b"content-encoding", coding.encode()))
        body = encodings.encode(body, key=rendered.key, coding=coding)
    return CacheableResponse(obtained, status=200, headers=headers, body=body)
