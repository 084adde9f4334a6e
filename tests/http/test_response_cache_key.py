"""Which differences of a request bypass a cached response: each by itself, for the cached address."""

import pytest

from tests.http.cached_site import CachedSite
from tests.http.site import Web


@pytest.mark.parametrize(
    "headers",
    [
        {"Accept-Encoding": "identity"},
        {"Accept": "application/json;q=0.9"},
        {"Prefer": "wait=1"},
        {"If-None-Match": '"other"'},
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "max-age=1"},
        {"Pragma": "no-cache"},
    ],
    ids=lambda headers: ", ".join(f"{name}: {value}" for name, value in headers.items()),
)
async def test_each_of_these_fields_bypasses_the_cache(web: Web, headers: dict[str, str]) -> None:
    """The same address with the same key was cached, and a request without the field is served from the cache."""
    site = CachedSite(web)
    await site.cached()
    await site.get()
    assert site.asked == 0
    await site.get(headers=headers)
    assert site.asked == 1


@pytest.mark.parametrize("headers", [{"User-Agent": "other"}, {"X-Request-Id": "mine"}, {"Cookie": "a=b"}])
async def test_other_fields_do_not_bypass_the_cache(web: Web, headers: dict[str, str]) -> None:
    """A request with any other field is served from the cache."""
    site = CachedSite(web)
    await site.cached()
    await site.get(headers=headers)
    assert site.asked == 0


async def test_another_query_string_bypasses_the_cache(web: Web) -> None:
    """A different query string bypasses the cache, even if it is equivalent."""
    site = CachedSite(web)
    await site.cached("/tasks?limit=3")
    await site.get("/tasks?limit=3&offset=0")
    assert site.asked == 1
