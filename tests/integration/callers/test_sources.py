"""Signing keys over real connections: TLS with its own CA, a token to present, and misbehaving servers."""

import gzip
import ssl
from pathlib import Path
from typing import Any

import pytest

from service.callers.issuer import KeySourceFailed
from service.callers.signing_keys import JWKS_MAX_BYTES
from service.callers.sources import FileKeySource, UrlKeySource, issuer_of
from service.settings import ServiceAccountSettings


def source(url: str, **changed: Any) -> UrlKeySource:
    values: dict[str, Any] = {"ca_file": None, "token_file": None, "timeout_s": 5.0}
    return UrlKeySource(url, **(values | changed))


async def test_keys_are_fetched_from_an_api_server(key_server: Any, certificate: Path, tmp_path: Path) -> None:
    """With the CA and a token the keys are fetched; both files are read again each time."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    token = tmp_path / "token"
    token.write_text("first\n")
    async with key_server.served(context) as base:
        keys = source(f"{base}/openid/v1/jwks", ca_file=str(certificate), token_file=str(token))
        assert await keys.read() == key_server.body
        token.write_text("second\n")
        assert await keys.read() == key_server.body
        with pytest.raises(KeySourceFailed, match="not trusted"):
            await source(base).read()
    first, second = key_server.heads
    assert first.startswith("GET /openid/v1/jwks HTTP/1.1\r\n")
    assert "authorization: bearer first\r\n" in first.lower()
    assert "authorization: bearer second\r\n" in second.lower()


@pytest.mark.parametrize("status", [301, 302, 403, 404, 500])
async def test_other_statuses_are_failures(key_server: Any, status: int) -> None:
    """No redirect is followed, and no answer of another status is taken for keys."""
    key_server.status = status
    async with key_server.served() as base:
        with pytest.raises(KeySourceFailed, match=str(status)):
            await source(base).read()
    assert len(key_server.heads) == 1


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "deflate", "br", "x-unknown"])
async def test_a_compressed_answer_is_a_failure(key_server: Any, coding: str) -> None:
    """A compressed answer is a failure: nothing is unpacked, so nothing can grow."""
    bomb = gzip.compress(gzip.compress(b" " * 50_000_000))
    key_server.body, key_server.fields = bomb, f"Content-Encoding: {coding}\r\n"
    async with key_server.served() as base:
        with pytest.raises(KeySourceFailed, match="compressed"):
            await source(base).read()
    assert "accept-encoding: identity\r\n" in key_server.heads[0].lower()


async def test_an_oversized_answer_is_a_failure(key_server: Any) -> None:
    """An answer beyond a megabyte is a failure."""
    key_server.body = b"x" * (JWKS_MAX_BYTES + 1)
    async with key_server.served() as base:
        with pytest.raises(KeySourceFailed, match="more than a JWKS"):
            await source(base).read()


async def test_a_server_that_hangs_is_left(key_server: Any) -> None:
    """A read ends within its timeout."""
    key_server.hangs = True
    async with key_server.served() as base:
        with pytest.raises(KeySourceFailed, match=r"Timeout|in time"):
            await source(base, timeout_s=0.1).read()
        key_server.hangs = False


async def test_unreachable_sources_are_failures(tmp_path: Path) -> None:
    """A refused connection, an invalid URL, a token file that is missing or holds two lines are failures."""
    two_lines = tmp_path / "two"
    two_lines.write_text("a\nb")
    for keys in (
        source("http://127.0.0.1:9/"),
        source("http://[/"),
        source("http://127.0.0.1:9/", token_file=str(tmp_path / "none")),
        source("http://127.0.0.1:9/", token_file=str(two_lines)),
        source("https://127.0.0.1:9/", ca_file=str(two_lines)),
        FileKeySource(str(tmp_path / "none")),
    ):
        with pytest.raises(KeySourceFailed):
            await keys.read()


async def test_settings_choose_the_source(key_server: Any, signer: Any, tmp_path: Path) -> None:
    """With a file its keys are read, with a URL those behind it."""
    file = tmp_path / "jwks.json"
    file.write_bytes(signer.jwks("one"))
    by_file = issuer_of(ServiceAccountSettings(issuer="a", audience="b", jwks_file=str(file)))
    await by_file.refresh()
    assert set(by_file.keys) == {"one"}
    async with key_server.served() as base:
        by_url = issuer_of(ServiceAccountSettings(issuer="a", audience="b", jwks_url=base))
        await by_url.refresh()
    assert set(by_url.keys) == {"one", "two"}
