"""The heads of answers: framing, and what must never get into one."""

import pytest

from service.server.response_head import Framing, InvalidResponse, encode_head


def head(
    status: int = 200, *headers: tuple[bytes, bytes], body: int | None = None, is_1_1: bool = True, keep: bool = True
) -> tuple[bytes, Framing]:
    """A head without a date."""
    return encode_head(status, headers, date=b"", body_length=body, is_1_1=is_1_1, keep_alive=keep)


@pytest.mark.parametrize(
    ("made", "fields", "framing"),
    [
        (head(body=3), b"content-length: 3", Framing(3, False, True)),
        (head(200, (b"content-length", b"7")), b"content-length: 7", Framing(7, False, True)),
        (head(), b"transfer-encoding: chunked", Framing(None, True, True)),
        (head(is_1_1=False), b"connection: close", Framing(None, False, False)),
        (head(body=3, is_1_1=False), b"content-length: 3\r\nconnection: keep-alive", Framing(3, False, True)),
        (head(body=3, keep=False), b"content-length: 3\r\nconnection: close", Framing(3, False, False)),
        (head(304, body=0), b"", Framing(None, False, True)),
        (head(204, body=0), b"", Framing(None, False, True)),
    ],
)
def test_how_a_body_is_delimited(made: tuple[bytes, Framing], fields: bytes, framing: Framing) -> None:
    """A body is delimited by its length if that is known, otherwise by chunks, or for HTTP/1.0 by the end of the
    connection; 204 and 304 have no body."""
    lines = made[0].removesuffix(b"\r\n\r\n").split(b"\r\n", 1)
    assert lines[1:] == ([fields] if fields else [])
    assert made[1] == framing


@pytest.mark.parametrize("value", [b"a\r\nx: y", b"a\nx: y", b"a\r"])
def test_a_field_with_a_line_end_is_a_fault(value: bytes) -> None:
    """A value with a line end is a fault of the app, and nothing of the response is sent."""
    with pytest.raises(InvalidResponse):
        head(200, (b"x", value))


def test_two_content_lengths_are_a_fault() -> None:
    """Two Content-Length fields are ambiguous, so the response is not sent."""
    with pytest.raises(InvalidResponse):
        head(200, (b"content-length", b"1"), (b"content-length", b"2"))
