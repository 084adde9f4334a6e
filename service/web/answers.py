"""Finished answers: status, header fields and body bytes, and how one is sent.

Every answer of a route passes through `Answer`, so this is the place to compress one or to keep one.
"""

from collections.abc import Callable
from typing import Any

import msgspec

Header = tuple[bytes, bytes]

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"
TEXT = b"text/plain; charset=utf-8"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it goes out, without the fields that belong to the connection."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


class Reply:
    """Sends an answer; an ASGI application, which Litestar takes from a handler as it is."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        """Send it."""
        answer = self._answer
        headers = [*answer.headers]
        if answer.status != 304:
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body, "more_body": False})


class Silence(Reply):
    """Sends nothing: the caller has hung up."""

    def __init__(self) -> None:
        super().__init__(Answer(status=499, headers=(), body=b""))

    async def __call__(self, scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        """Do nothing."""


def json_answer(value: object, *, status: int = 200, cache_control: bytes = b"no-store") -> Answer:
    """A value as JSON."""
    return Answer(
        status=status,
        headers=((b"content-type", JSON), (b"cache-control", cache_control)),
        body=msgspec.json.encode(value),
    )
