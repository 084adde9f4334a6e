"""Static files: their codings, their names with hashes, and how long browsers keep them."""

import gzip
import re

import pytest

from tests.http.site import Web, raw

IMMUTABLE = "public, max-age=31536000, immutable"


async def hashed(web: Web, page: str, stem: str) -> str:
    """Return the hashed name by which a page refers to one of its parts."""
    found = re.search(rf'"({stem}\.[0-9a-f]{{12}}\.\w+)"', (await web.client.get(page)).text)
    assert found is not None
    return f"/{found[1]}"


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/docs/scalar.js", "/docs/start.js", "/page/page.css"])
async def test_each_coding_has_the_same_content(web: Web, path: str) -> None:
    """Compressed and plain have the same content, each with its length and own strong tag; a held tag gets a 304."""
    plain = await web.client.get(path, headers={"Accept-Encoding": "identity"})
    packed = await web.client.get(path, headers={"Accept-Encoding": "gzip"})
    assert plain.content == packed.content
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in plain.headers
    assert int(plain.headers["content-length"]) == len(plain.content)
    is_large = len(plain.content) >= 1024
    assert packed.headers.get("content-encoding") == ("gzip" if is_large else None)
    assert (plain.headers["etag"] == packed.headers["etag"]) == (not is_large)
    for answer in (plain, packed):
        coding = answer.headers.get("content-encoding", "identity")
        again = await web.client.get(path, headers={"Accept-Encoding": coding, "If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == answer.headers["etag"]
        assert "content-type" not in again.headers


async def test_head_has_the_fields_of_get(web: Web) -> None:
    """HEAD has the fields of GET, and no body."""
    for coding in ("identity", "gzip"):
        fields = {"Accept-Encoding": coding}
        get = await web.client.get("/docs/scalar.js", headers=fields)
        head = await web.client.head("/docs/scalar.js", headers=fields)
        assert head.content == b""
        for name in ("content-length", "etag", "cache-control", "content-type"):
            assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    ("page", "stem"), [("/", "page/page"), ("/", "page/card"), ("/docs", "docs/scalar"), ("/docs", "docs/start")]
)
async def test_a_name_with_a_hash_is_immutable(web: Web, page: str, stem: str) -> None:
    """With its hash a file is cached for good, without for a minute; another hash gets this file, to be revalidated."""
    name = await hashed(web, page, stem)
    assert (await web.client.get(name)).headers["cache-control"] == IMMUTABLE
    plain = re.sub(r"\.[0-9a-f]{12}\.", ".", name)
    assert (await web.client.get(plain)).headers["cache-control"] == "public, max-age=60"
    other = await web.client.get(re.sub(r"\.[0-9a-f]{12}\.", ".0123456789ab.", name))
    assert (other.status_code, other.headers["cache-control"]) == (200, "no-cache")
    assert other.content == (await web.client.get(plain)).content
    assert (await web.client.get(f"/{stem.partition('/')[0]}/nothing.0123456789ab.js")).status_code == 404


async def test_a_file_arrives_complete_on_a_socket(web: Web) -> None:
    """A browser gets the complete file."""
    async with web.on_a_socket() as port:
        for coding in (b"identity", b"gzip"):
            answer = await raw(
                port,
                b"GET /docs/scalar.js HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n"
                b"Accept-Encoding: " + coding + b"\r\n\r\n",
            )
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            script = gzip.decompress(body) if coding == b"gzip" else body
            assert script.endswith((await web.client.get("/docs/scalar.js")).content[-1000:])
            assert len(script) == len((await web.client.get("/docs/scalar.js")).content)
