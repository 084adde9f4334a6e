"""The issuer's keys: which keys of a JWKS are read, and how often it is fetched."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.callers.issuer import TokenIssuer
from service.callers.signing_keys import InvalidJwks, read_jwks
from tests.servers import until
from tests.unit.callers.tables import Clock, Held


@asynccontextmanager
async def following(issuer: TokenIssuer) -> AsyncIterator[None]:
    """An issuer whose keys are kept fresh."""
    issuer.start()
    await issuer.wait_for_keys()
    yield
    await issuer.aclose()


def test_unusable_keys_are_skipped(mint: Any) -> None:
    """Secrets, other curves and algorithms, encryption keys, weak and broken ones are skipped; so is a second `r`."""
    rsa_key, ec_key = json.loads(mint.jwks())["keys"]
    other = {**rsa_key, "n": rsa_key["n"][::-1]}
    more = (
        {"kty": "oct", "kid": "o", "k": "c2VjcmV0"},
        {**rsa_key, "kid": "512", "alg": "RS512"},
        {**rsa_key, "kid": "enc", "use": "enc"},
        {**rsa_key, "kid": "weak", "n": "AQAB"},
        {**rsa_key, "kid": "broken", "n": "%"},
        {**rsa_key, "kid": "bare", "n": None},
        {**ec_key, "kid": "curve", "crv": "P-384"},
        {**ec_key, "kid": "off", "x": ec_key["y"]},
        {**ec_key, "kid": ""},
        {**other, "kid": "r"},
        {"kid": "nothing"},
        7,
    )
    raw = json.dumps({"keys": [rsa_key, ec_key, *more]}).encode()
    keys = read_jwks(raw)
    assert {kid: key.algorithm for kid, key in keys.items()} == {"r": "RS256", "e": "ES256"}
    assert keys["r"].thumbprint == ("RSA", rsa_key["n"], rsa_key["e"])


async def test_keys_are_bounded(mint: Any) -> None:
    """The last of five hundred is found; those beyond the bound are counted, and the log says so once."""
    ec_key = json.loads(mint.jwks(without="r"))["keys"][0]
    many = [{**ec_key, "kid": f"k{number}"} for number in range(1200)]
    strange = [{"kty": "oct", "kid": f"o{number}"} for number in range(300)]
    assert "k499" in read_jwks(json.dumps({"keys": [*strange, *many[:500]]}).encode())
    source, clock = Held(json.dumps({"keys": many}).encode()), Clock()
    issuer = TokenIssuer(source, refresh_s=300, clock=clock)
    with capture_logs() as logs:
        for _ in range(3):
            await issuer.refresh()
            clock.now_s += 31
    warned = [(log["known"], log["left_out"]) for log in logs if log["event"] == "issuer.keys_left_out"]
    assert warned == [(1000, 200)]
    assert "k999" in issuer.keys


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"keys":[]}', b'{"keys":{}}', b"\xff", b"[" * 100_000])
def test_a_document_without_keys_is_a_failure(raw: bytes) -> None:
    """A document without a key is reported as such."""
    with pytest.raises(InvalidJwks):
        read_jwks(raw)


async def test_a_flood_of_unknown_keys_fetches_once_in_30_s(mint: Any) -> None:
    """However many requests, together and one after the other, the source is read once; after 30 s once more."""
    source, clock = Held(mint.jwks()), Clock()
    issuer = TokenIssuer(source, refresh_s=300, clock=clock)
    await issuer.refresh()
    clock.now_s += 31
    source.go.clear()
    flood = [asyncio.create_task(issuer.refresh()) for _ in range(500)]
    await until(lambda: source.reads == 2)
    source.go.set()
    await asyncio.gather(*flood)
    for _ in range(500):
        await issuer.refresh()
    assert source.reads == 2
    clock.now_s += 29.9
    await issuer.refresh()
    assert source.reads == 2
    clock.now_s += 0.2
    await issuer.refresh()
    assert source.reads == 3


async def test_the_last_keys_stay_while_the_source_fails(mint: Any) -> None:
    """A source that fails, or returns nonsense, removes no key."""
    source, clock = Held(mint.jwks()), Clock()
    issuer = TokenIssuer(source, refresh_s=300, clock=clock)
    issuer.on_drop = pytest.fail
    await issuer.refresh()
    for raw in (None, b"nonsense", b'{"keys":[]}'):
        source.raw = raw
        clock.now_s += 31
        await issuer.refresh()
        assert set(issuer.keys) == {"r", "e"}
    assert source.reads == 4


async def test_keys_are_fetched_periodically(mint: Any) -> None:
    """The first fetch is waited for; then the timer continues, through failures, and stops on leaving."""
    source = Held(mint.jwks())
    issuer = TokenIssuer(source, refresh_s=0.01)
    dropped: list[set[str]] = []
    issuer.on_drop = lambda: dropped.append(set(issuer.keys))
    async with following(issuer):
        assert set(issuer.keys) == {"r", "e"}
        source.raw, before = None, source.reads
        await until(lambda: source.reads >= before + 3)
        source.raw = mint.jwks(without="r")
        await until(lambda: set(issuer.keys) == {"e"})
        assert dropped == [{"e"}]
    fetches = source.reads
    await asyncio.sleep(0.05)
    assert source.reads == fetches


async def test_the_start_does_not_wait_for_a_source_that_hangs(mint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unresponsive issuer delays the start by a bounded time, and does not block the end."""
    monkeypatch.setattr("service.callers.issuer.WAIT_S", 0.05)
    source = Held(mint.jwks())
    source.go.clear()
    issuer = TokenIssuer(source, refresh_s=300)
    async with asyncio.timeout(20), following(issuer):
        assert issuer.keys == {}
