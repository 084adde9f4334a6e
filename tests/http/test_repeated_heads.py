"""Requests whose head has the same bytes as an earlier one: which of them the response cache answers without
parsing."""

import pytest

from tests.http.cached_site import CachedSite
from tests.http.site import AUTH, Web


@pytest.fixture
async def site(web: Web) -> CachedSite:
    """A response that has been looked up, so that the head of its request is known."""
    site = CachedSite(web, way="looked up")
    await _look_up(site)
    return site


async def _look_up(site: CachedSite, fields: dict[str, str] | None = None) -> None:
    for _ in range(3):  # the third is looked up
        await site.get(headers=fields)


@pytest.mark.parametrize(
    ("fields", "recurs"),
    [
        ({}, True),
        ({"Connection": "Keep-Alive"}, True),
        ({"Connection": "close"}, False),
        ({"Connection": "keep-alive, x"}, False),
        ({"X-Request-ID": "mine"}, False),
        ({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, False),
    ],
)
async def test_which_heads_are_answered_unparsed(web: Web, fields: dict[str, str], recurs: bool) -> None:
    """Heads that keep their connection open and carry no id are answered unparsed; others are parsed each time."""
    site = CachedSite(web, way="looked up")
    await _look_up(site, fields)
    again = site.cache.lookup_head(site.heads[-1], ("127.0.0.1", 1))
    assert (again is not None) is recurs


async def test_an_unknown_head_is_not_answered(site: CachedSite) -> None:
    """One byte more makes it another request."""
    assert site.cache.lookup_head(site.heads[-1] + b" ", ("127.0.0.1", 1)) is None


async def test_a_head_is_forgotten_with_its_response(site: CachedSite) -> None:
    """It is not answered once the response is no longer fresh, nor after callers or settings have changed."""
    held = site.cache.size_bytes
    site.cache.forget()
    assert site.cache.size_bytes == 0 < held
    assert site.cache.lookup_head(site.heads[-1], ("127.0.0.1", 1)) is None
    await _look_up(site)
    site.now_s += 3600
    assert site.cache.lookup_head(site.heads[-1], ("127.0.0.1", 1)) is None
    assert site.cache.size_bytes == 0


async def test_clients_that_send_the_same_head_are_distinguished(site: CachedSite) -> None:
    """The record of each request has the address of its own connection, and a unique id."""
    for address in ("10.0.0.1", "10.0.0.2"):
        assert site.cache.lookup_head(site.heads[-1], (address, 1)) is not None
    one, other = site.observed[-2:]
    assert (one.client, other.client) == ("10.0.0.1", "10.0.0.2")
    assert one.request_id != other.request_id


async def test_heads_have_a_part_of_the_memory_of_their_own(web: Web) -> None:
    """Heads count against the bound but, however many there are, evict no response."""
    site = CachedSite(web, max_bytes=80_000, way="looked up")
    await site.cached()
    alone = site.cache.size_bytes
    await site.get()
    of_one = site.cache.size_bytes - alone
    assert of_one > 1000 + 2 * len(site.heads[-1])
    for number in range(50):
        await site.get(headers={"User-Agent": f"client {number:02}"})
    assert 10_000 - of_one < site.cache.size_bytes - alone <= 10_000
    assert site.cache.lookup_head(site.heads[-1], ("127.0.0.1", 1)) is not None
    assert site.cache.lookup_head(site.heads[2], ("127.0.0.1", 1)) is None, "the longest unused have left"
    assert (len(site.cache), site.asked) == (1, 0)


async def test_a_head_without_connection_is_answered_unparsed(web: Web) -> None:
    """HTTP/1.1 keeps connections open by default."""
    site = CachedSite(web, way="looked up")
    for _ in range(3):
        request = site.client.build_request("GET", "/tasks", headers=AUTH)
        del request.headers["connection"]
        await site.client.send(request)
    assert site.cache.lookup_head(site.heads[-1], ("127.0.0.1", 1)) is not None
