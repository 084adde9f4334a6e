"""Content codings: RFC 9110, 12.5.3 as a table of cases, and bodies that are compressed once."""

import gzip

import pytest

from service.web.headers.encoding import Encodings, choose_encoding, compressors, etag_for

BOTH = ("zstd", "gzip")

CASES = [
    (None, None, True),
    (b"", None, True),
    (b"gzip", "gzip", True),
    (b"GZIP", "gzip", True),
    (b"x-gzip", "gzip", True),
    (b"zstd", "zstd", True),
    (b"gzip, deflate, br, zstd", "zstd", True),
    (b"gzip;q=1.0, zstd;q=0.5", "gzip", True),
    (b"gzip;q=0", None, True),
    (b"gzip; q=0.000, zstd ; q=0", None, True),
    (b"br", None, True),
    (b"*", "gzip", True),
    (b"*;q=0", None, True),
    (b"gzip, *;q=0", "gzip", False),
    (b"zstd, *;q=0.1", "zstd", True),
    (b"gzip;q=0, *", None, True),
    (b"identity", None, True),
    (b"identity;q=0", None, True),
    (b"identity;q=0, gzip", "gzip", False),
    (b"identity;q=0, *", "gzip", False),
    (b"identity, gzip;q=0.5", None, True),
    (b"identity;q=0.5, gzip", "gzip", True),
    (b"identity;q=0.5, gzip;q=0.5", "gzip", True),
    (b"gzip;q=2", None, True),
    (b"gzip;q=0.0001", None, True),
    (b"gzip;q=nan", None, True),
    (b"gzip;level=9", None, True),
    (b"gzip;q=1;level=9", None, True),
    (b"gzip=1", None, True),
    (b"application/gzip", None, True),
    (b"gzip;q=0, gzip", None, True),
    (b",, ,gzip,", "gzip", True),
    (b"gzip deflate", None, True),
    (b"\xff\x00, gzip", "gzip", True),
    (b"a," * 100 + b"gzip", None, True),
]


@pytest.mark.parametrize(("field", "coding", "takes_identity"), CASES)
def test_the_preferred_coding_is_chosen(field: bytes | None, coding: str | None, takes_identity: bool) -> None:
    """Each field gives the coding that it names best, and says whether a plain body would do."""
    choice = choose_encoding(field, BOTH)
    assert (choice.coding, choice.takes_identity) == (coding, takes_identity)


def test_a_coding_that_is_not_installed_is_never_chosen() -> None:
    """A coding that is not installed is never chosen."""
    assert choose_encoding(b"zstd, gzip;q=0.1", ("gzip",)).coding == "gzip"
    assert choose_encoding(b"zstd", ("gzip",)).coding is None


def test_small_bodies_are_sent_uncompressed() -> None:
    """A small body is sent uncompressed, unless the caller does not accept that."""
    encodings = Encodings(compressors(), max_bytes=1000)
    assert encodings.choose(b"gzip", body_bytes=1023) is None
    assert encodings.choose(b"gzip", body_bytes=1024) == "gzip"
    assert encodings.choose(b"gzip, identity;q=0", body_bytes=10) == "gzip"


def test_a_body_is_compressed_once() -> None:
    """The same body is compressed once, and decompresses to the original."""
    body = b"task " * 1000
    compressed: list[bytes] = []
    encodings = Encodings({"gzip": lambda body: compressed.append(body) or gzip.compress(body)}, max_bytes=10_000)
    made = [encodings.encode(body, key="a", coding="gzip") for _ in range(5)]
    assert compressed == [body]
    assert len(set(made)) == 1
    assert gzip.decompress(made[0]) == body


def test_the_least_recently_used_body_is_evicted() -> None:
    """Two bodies of 100 bytes fit into 250; the least recently used one makes room for a third."""
    compressed: list[bytes] = []
    encodings = Encodings({"gzip": lambda body: compressed.append(body) or body}, max_bytes=250)
    for key in (b"a", b"b", b"a", b"c", b"a", b"b"):
        encodings.encode(key * 100, key=key, coding="gzip")
    assert [body[:1] for body in compressed] == [b"a", b"b", b"c", b"b"]


def test_every_coding_round_trips() -> None:
    """All installed codings decompress to the original, and compress to the same bytes each time."""
    body = b'{"id":1}' * 500
    for name, compress in compressors().items():
        assert compress(body) == compress(body)
        assert len(compress(body)) < len(body)
        if name == "gzip":
            assert gzip.decompress(compress(body)) == body


def test_strong_tags_differ() -> None:
    """Each coding has a strong tag of its own."""
    assert [etag_for(b'"a"', coding) for coding in (None, "gzip", "zstd")] == [b'"a"', b'"a-gzip"', b'"a-zstd"']
