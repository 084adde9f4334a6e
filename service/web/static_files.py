"""Static files: HTML pages and the parts they load, compressed once, cacheable, and shared by all responses.

A page refers to its parts by names with a hash of their content (`page.0a1b2c3d4e5f.js`), which are immutable. For a
name with another hash, as used by the page of an older or newer replica, this replica's file is returned with
`no-cache`, so that browsers revalidate it.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import NotFoundException

from service.observe.request import context_of
from service.web.headers.conditional import matches_etag
from service.web.headers.encoding import GZIP, SMALL_BYTES, choose_encoding, etag_for
from service.web.responses import HTML, Header, Response

FOR_A_MINUTE = b"public, max-age=60"
_IMMUTABLE = b"public, max-age=31536000, immutable"
_MEDIA_TYPES = {
    ".html": HTML,
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}
_HASHED = re.compile(r"(.+)\.([0-9a-f]{12})(\.[a-z]+)")


class StaticFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file in memory. `headers` are sent with every response for it; `gzipped` is its content compressed by gzip."""

    headers: tuple[Header, ...]
    digest: str
    gzipped: bytes
    size_bytes: int

    def response(self, request: Request[Any, Any, Any], *, cache_control: bytes) -> Response:
        """Return the file in a coding that the caller accepts, or 304 if the caller has it already."""
        context = context_of(request.scope)
        fields = context.fields
        choice = choose_encoding(fields.get(b"accept-encoding"), (GZIP,))
        is_sent_as_is = self.size_bytes < SMALL_BYTES and choice.takes_identity
        coding = None if is_sent_as_is else choice.coding
        etag = etag_for(b'"%s"' % self.digest.encode(), coding)
        headers = ((b"etag", etag), (b"cache-control", cache_control), (b"vary", b"Accept-Encoding"), *self.headers)
        if matches_etag(fields.get(b"if-none-match"), etag):
            without_type = tuple(header for header in headers if header[0] != b"content-type")
            return Response(status=304, headers=without_type)
        if coding is None:
            return Response(status=200, headers=headers, body=_gunzip(self.gzipped))
        return Response(status=200, headers=(*headers, (b"content-encoding", coding.encode())), body=self.gzipped)


def static_file(media_type: bytes, body: bytes, *, policy: bytes, is_gzipped: bool = False) -> StaticFile:
    """Return a file served with this Content-Security-Policy. `body` is compressed by gzip if `is_gzipped`."""
    gzipped = body if is_gzipped else gzip.compress(body, mtime=0)
    return StaticFile(
        headers=(
            (b"content-security-policy", policy),
            (b"referrer-policy", b"no-referrer"),
            (b"content-type", media_type),
        ),
        digest=hashlib.blake2b(body, digest_size=6).hexdigest(),
        gzipped=gzipped,
        size_bytes=int.from_bytes(gzipped[-4:], "little"),
    )


class StaticSite:
    """A page `index.html` and its parts, from a folder of `service.web` whose name is also their path prefix.

    A part may refer to parts that precede it in `parts`, as `./NAME`.
    """

    def __init__(self, folder: str, parts: tuple[str, ...], *, policy: bytes) -> None:
        self._parts: dict[str, StaticFile] = {}
        for name in parts:
            body, is_gzipped = _package_file(folder, name)
            if not is_gzipped:
                body = _with_hashes(body, self._parts, prefix="./")
            self._parts[name] = static_file(_MEDIA_TYPES[_suffix(name)], body, policy=policy, is_gzipped=is_gzipped)
        page, _ = _package_file(folder, "index.html")
        self._page = static_file(HTML, _with_hashes(page, self._parts, prefix=f"{folder}/"), policy=policy)

    def page(self, request: Request[Any, Any, Any]) -> Response:
        """Return the page."""
        return self._page.response(request, cache_control=FOR_A_MINUTE)

    def part(self, request: Request[Any, Any, Any], name: str) -> Response:
        """Return a part by its name, with or without a hash. Raise NotFoundException if there is none."""
        hashed = _HASHED.fullmatch(name)
        part = self._parts.get(name if hashed is None else hashed[1] + hashed[3])
        if part is None:
            raise NotFoundException
        if hashed is None:
            return part.response(request, cache_control=FOR_A_MINUTE)
        return part.response(request, cache_control=_IMMUTABLE if hashed[2] == part.digest else b"no-cache")


@lru_cache(maxsize=16)
def _gunzip(gzipped: bytes) -> bytes:
    """Return a file's uncompressed content. Cached, since decompressing it for each response would cost more."""
    return gzip.decompress(gzipped)


def _package_file(folder: str, name: str) -> tuple[bytes, bool]:
    """Return a file's bytes from the package, and whether they are compressed by gzip."""
    path = files("service.web") / folder
    if (gzipped := path / f"{name}.gz").is_file():
        return gzipped.read_bytes(), True
    return (path / name).read_bytes(), False


def _with_hashes(body: bytes, parts: Mapping[str, StaticFile], *, prefix: str) -> bytes:
    for name, part in parts.items():
        suffix = _suffix(name)
        hashed = f"{name.removesuffix(suffix)}.{part.digest}{suffix}"
        body = body.replace(f'"{prefix}{name}"'.encode(), f'"{prefix}{hashed}"'.encode())
    return body


def _suffix(name: str) -> str:
    return name[name.rindex(".") :]
