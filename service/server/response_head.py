"""Response headers (called heads): status line, fields, and the framing of the body (RFC 9112, 6)."""

import time
from collections.abc import Collection
from email.utils import formatdate
from http import HTTPStatus

import msgspec

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus}


class InvalidResponse(Exception):
    """The app's response can't be expressed in HTTP."""


class Framing(msgspec.Struct, frozen=True, gc=False):
    """How the body is sent: the length in the head or None, whether chunked, and whether the connection stays open."""

    length: int | None
    is_chunked: bool
    keep_alive: bool


class DateHeader:
    """The field `Date`, recomputed once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._field = b""

    def line(self) -> bytes:
        """Return the current field line, preceded by a line end."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._field = b"\r\ndate: %b" % formatdate(second, usegmt=True).encode()
        return self._field


def encode_head(
    status: int,
    headers: Collection[tuple[bytes, bytes]],
    *,
    date: bytes,
    body_length: int | None,
    is_1_1: bool,
    keep_alive: bool,
) -> tuple[bytes, Framing]:
    """Return the head's bytes and the framing of its body. `body_length` is that of the whole body, if known.

    Raise InvalidResponse if a field contains a line end or two lengths are given.
    """
    lines = head_lines(status, headers)
    lengths = [value for name, value in headers if name == b"content-length"]
    if len(lengths) > 1:
        raise InvalidResponse("two lengths")
    length = int(lengths[0]) if lengths else None
    rest = b""
    is_chunked = False
    if length is None and status >= 200 and status not in (204, 304):
        if body_length is not None:
            length = body_length
            rest = b"\r\ncontent-length: %d" % length
        elif is_1_1:
            is_chunked = True
            rest = b"\r\ntransfer-encoding: chunked"
        else:
            keep_alive = False
    end = last_lines(date=date, is_1_1=is_1_1, keep_alive=keep_alive)
    return b"%b%b%b" % (lines, rest, end), Framing(length, is_chunked, keep_alive)


def last_lines(*, date: bytes, is_1_1: bool, keep_alive: bool) -> bytes:
    """Return the end of a head: the fields that depend on the moment and on the connection, and the empty line."""
    if not keep_alive:
        return b"%b\r\nconnection: close\r\n\r\n" % date
    return b"%b\r\n\r\n" % date if is_1_1 else b"%b\r\nconnection: keep-alive\r\n\r\n" % date


def head_lines(status: int, headers: Collection[tuple[bytes, bytes]]) -> bytes:
    """Return the status line and the field lines, without the last line end.

    Raise InvalidResponse if a field contains a line end.
    """
    status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
    lines = b"\r\n".join([status_line, *[b": ".join(field) for field in headers]])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers):
        raise InvalidResponse("a line end within a field")
    return lines
