"""Complete responses (status, header fields, body bytes) and how to send one.

Every response of a route passes through `Answer`, so compression or caching of responses belongs here.
"""

from collections.abc import Callable
from typing import Any

import msgspec

Header = tuple[bytes, bytes]

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"

NOSNIFF: Header = (b"x-content-type-options", b"nosniff")
"""Sent with every response."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A response as sent, without connection-specific header fields."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    @property
    def sent_headers(self) -> tuple[Header, ...]:
        """The header fields with the body's length; 204 and 304 have no body."""
        if self.status in (204, 304):
            return self.headers
        return (*self.headers, (b"content-length", b"%d" % len(self.body)))


class Reply:
    """An ASGI application that sends a response; Litestar accepts it as a handler's return value."""

    __slots__ = ("answer",)

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        """Send the response."""
        answer = self.answer
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.sent_headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})


class Silence(Reply):
    """A reply that sends nothing, for callers that have disconnected."""

    def __init__(self) -> None:
        super().__init__(Answer(status=499, headers=(), body=b""))

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        """Do nothing."""


def json_answer(value: object, *, status: int = 200, cache_control: bytes = b"no-store") -> Answer:
    """Return the value as a JSON response."""
    return Answer(
        status=status,
        headers=((b"content-type", JSON), (b"cache-control", cache_control)),
        body=msgspec.json.encode(value),
    )
