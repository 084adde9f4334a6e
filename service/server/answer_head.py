"""Answer heads: status line, fields, and the framing of the body (RFC 9112, 6)."""

import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

import msgspec

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus}
_KEEP = b"\r\nconnection: keep-alive"
_CLOSE = b"\r\nconnection: close"


class BrokenAnswer(Exception):
    """The app's answer can't be expressed in HTTP."""


class Framing(msgspec.Struct, frozen=True, gc=False):
    """How the body is sent: the length in the head or None, whether chunked, and whether the connection stays open."""

    length: int | None
    is_chunked: bool
    keep_alive: bool


class Clock:
    """The field `Date`, recomputed once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._field = b""

    def date(self) -> bytes:
        """Return the field line, preceded by a line end."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._field = b"\r\ndate: %b" % formatdate(second, usegmt=True).encode()
        return self._field


def head_of(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    date: bytes,
    body_length: int | None,
    is_1_1: bool,
    keep_alive: bool,
) -> tuple[bytes, Framing]:
    """Return the head's bytes and the framing of its body. `body_length` is that of the whole body, if known.

    Raise BrokenAnswer if a field contains a line end or two lengths are given.
    """
    lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status]
    length = None
    for name, value in headers:
        lines.append(b"%b: %b" % (name, value))
        if name == b"content-length":
            if length is not None:
                raise BrokenAnswer("two lengths")
            length = int(value)
    head = b"\r\n".join(lines)
    if head.count(b"\n") != len(lines) - 1 or head.count(b"\r") != len(lines) - 1:
        raise BrokenAnswer("a line end within a field")
    rest = date
    is_chunked = False
    if length is None and status >= 200 and status not in (204, 304):
        if body_length is not None:
            length = body_length
            rest += b"\r\ncontent-length: %d" % length
        elif is_1_1:
            is_chunked = True
            rest += b"\r\ntransfer-encoding: chunked"
        else:
            keep_alive = False
    if not keep_alive:
        rest += _CLOSE
    elif not is_1_1:
        rest += _KEEP
    return b"%b%b\r\n\r\n" % (head, rest), Framing(length, is_chunked, keep_alive)
