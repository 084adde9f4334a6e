"""Compressed answers over HTTP."""

import asyncio
import gzip
import zlib

import pytest

from tests.http.site import Web

LARGE = b",".join(b'{"id":%d,"title":"Spring sale"}' % number for number in range(100))


@pytest.fixture(autouse=True)
def large(web: Web) -> None:
    """Pages that are worth compressing."""
    web.gateway.changes = {"body": LARGE}


async def _raw(web: Web, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Return the answer with its body as received."""
    fields = {"Authorization": "Bearer one-key", **{name.replace("_", "-"): value for name, value in headers.items()}}
    async with web.client.stream("GET", "/tasks", headers=fields) as answer:
        body = b"".join([part async for part in answer.aiter_raw()])
        return answer.status_code, dict(answer.headers), body


async def test_a_body_is_compressed_if_the_client_accepts_gzip(web: Web) -> None:
    """A client that accepts gzip gets the same body compressed, under the same weak tag; `Vary` tells caches why."""
    _, plain_fields, plain = await _raw(web, Accept_Encoding="identity")
    status, fields, body = await _raw(web, Accept_Encoding="gzip")
    assert status == 200
    assert fields["content-encoding"] == "gzip"
    assert int(fields["content-length"]) == len(body) < len(plain) / 3
    assert gzip.decompress(body) == plain
    assert "content-encoding" not in plain_fields
    assert fields["etag"] == plain_fields["etag"]
    assert "Accept-Encoding" in fields["vary"]
    assert "Accept-Encoding" in plain_fields["vary"]


async def test_the_tag_is_that_of_all_codings(web: Web) -> None:
    """A client that holds the page in one coding gets a 304 for any; one that holds none gets an accepted coding."""
    _, fields, _ = await _raw(web, Accept_Encoding="gzip")
    for coding in ("gzip", "identity"):
        status, kept, body = await _raw(web, Accept_Encoding=coding, If_None_Match=fields["etag"])
        assert (status, body) == (304, b"")
        assert "content-encoding" not in kept


async def test_each_body_is_compressed_by_itself(web: Web) -> None:
    """Pages with the same tag may differ in their time of fetch: the compressed body of one is never sent for
    another."""
    for fetched_at_ms in (1_749_999_990_000, 1_749_999_991_000, 1_749_999_990_000):
        web.gateway.changes = {"body": LARGE, "fetched_at_ms": fetched_at_ms}
        plain, packed = await web.get(headers={"Accept-Encoding": "identity"}), await web.get()
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain.content
        queried = await web.get("/tasks?q=other")
        assert queried.json()["q"] == "other"


async def test_small_answers_stay_as_they_are(web: Web) -> None:
    """Bodies under a kilobyte are compressed only if the client does not accept an uncompressed one."""
    web.gateway.changes = {}
    web.gateway.listed = web.gateway.listed[:2]
    _, fields, _ = await _raw(web, Accept_Encoding="gzip")
    assert "content-encoding" not in fields
    _, fields, body = await _raw(web, Accept_Encoding="gzip, identity;q=0")
    assert fields["content-encoding"] == "gzip"
    assert gzip.decompress(body).startswith(b'{"app"')


async def test_head_has_the_fields_of_the_compressed_answer(web: Web) -> None:
    """HEAD returns the fields of the compressed answer, without its body."""
    answer = await web.client.head("/tasks", headers={"Authorization": "Bearer one-key", "Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == b""


STREAM = b"GET /tasks HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer one-key\r\nAccept: application/x-ndjson\r\n"


async def test_a_stream_is_compressed_if_accepted(web: Web) -> None:
    """The lines are the same, in less than a third of the bytes; a client that accepts only zstd gets them plain."""
    plain = await web.get(headers={"Accept": "application/x-ndjson", "Accept-Encoding": "zstd"})
    assert "content-encoding" not in plain.headers
    fields = {"Authorization": "Bearer one-key", "Accept": "application/x-ndjson", "Accept-Encoding": "gzip"}
    async with web.client.stream("GET", "/tasks", headers=fields) as answer:
        packed = b"".join([part async for part in answer.aiter_raw()])
        assert answer.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in answer.headers["vary"]
    assert gzip.decompress(packed) == plain.content
    assert len(packed) < len(plain.content) / 3


async def test_a_compressed_stream_is_flushed_after_each_block(web: Web) -> None:
    """The first hundred tasks can be read while the second block is still being waited for."""
    second = asyncio.Event()
    web.gateway.chunk_outcomes[100] = second
    async with web.on_a_socket() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(STREAM + b"Accept-Encoding: gzip\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-encoding: gzip" in head
        unpacking = zlib.decompressobj(wbits=31)
        lines = b""
        async with asyncio.timeout(20):
            while lines.count(b"\n") < 100:
                size = int(await reader.readuntil(b"\r\n"), 16)
                lines += unpacking.decompress((await reader.readexactly(size + 2))[:-2])
        assert not second.is_set()
        second.set()
        async with asyncio.timeout(20):
            while size := int(await reader.readuntil(b"\r\n"), 16):
                lines += unpacking.decompress((await reader.readexactly(size + 2))[:-2])
        writer.close()
    assert lines.count(b"\n") == 251
    assert unpacking.eof
