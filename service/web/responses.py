"""Complete responses (status, header fields, body bytes) and how to send one.

Every response of a route passes through `Response`, so compression or caching of responses belongs here.
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


class Response:
    """A response without connection-specific header fields, and the ASGI application that sends it.

    Litestar accepts it as a handler's return value.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(self, *, status: int, headers: tuple[Header, ...], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def sent_headers(self) -> tuple[Header, ...]:
        """The header fields with the body's length; 204 and 304 have no body."""
        if self.status in (204, 304):
            return self.headers
        return (*self.headers, (b"content-length", b"%d" % len(self.body)))

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        """Send the response."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.sent_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


class NoResponse(Response):
    """Sends nothing, for callers that have disconnected."""

    def __init__(self) -> None:
        super().__init__(status=499, headers=())

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        """Do nothing."""


def json_response(value: object, *, status: int = 200) -> Response:
    """Return the value as a JSON response that must not be stored."""
    return Response(
        status=status,
        headers=((b"content-type", JSON), (b"cache-control", b"no-store")),
        body=msgspec.json.encode(value),
    )
