"""The response cache: which requests it answers, and for how long."""

from typing import Any

import msgspec
import pytest

from service.model.origin import FetchCost
from service.model.pages import Source
from service.web.middleware import FIELDS_MAX_BYTES
from tests.http.cached_site import CachedSite
from tests.http.fake_gateway import NOW_S
from tests.http.site import AUTH, MANY_AUTH, Web


@pytest.fixture(params=["called", "looked up", "repeated"])
def site(web: Web, request: pytest.FixtureRequest) -> CachedSite:
    """A page that was fetched 4 s ago and is fresh for 15 s; requested in each possible way."""
    return CachedSite(web, way=request.param)


async def test_a_repeated_request_is_served_from_the_cache(site: CachedSite) -> None:
    """It has the same bytes, with its current age; the gateway is not called."""
    first = await site.cached()
    site.now_s += 3
    second = await site.get()
    assert site.asked == 0
    assert second.content == first.content
    assert (first.headers["age"], second.headers["age"]) == ("4", "7")
    assert second.headers["cache-status"] == "taskgate; hit; ttl=8"
    apart = {"age", "cache-status", "x-request-id"}
    assert {k: v for k, v in second.headers.items() if k not in apart} == {
        k: v for k, v in first.headers.items() if k not in apart
    }
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_a_request_made_once_is_not_cached(site: CachedSite) -> None:
    """Responses are kept from the second request on, even if the first was long ago and got an older page."""
    await site.get()
    assert len(site.cache) == 0
    site.now_s += 3600
    site.web.gateway.changes = {"fetched_at_ms": int(site.now_s * 1000)}
    await site.get()
    assert len(site.cache) == 1


async def test_a_response_is_not_served_past_its_freshness(site: CachedSite) -> None:
    """It is served up to the end of the block's lifetime, to the millisecond."""
    await site.cached()
    site.now_s += 10.99
    assert (await site.get()).headers["age"] == "14"
    assert site.asked == 0
    site.now_s += 0.02
    await site.get()
    assert site.asked == 1


async def test_cached_responses_are_observed(site: CachedSite, web: Web) -> None:
    """Observers get a cached answer with caller, app, route and outcome, and it carries the caller's own id."""
    web.gateway.listed = web.gateway.listed[:2]  # too little for compression
    web.gateway.changes = {"source": Source.FETCHED}
    web.gateway.cost = FetchCost(waited_s=0.5, upstream_s=0.25, calls=1)
    first = await site.cached()
    web.observed.clear()
    answer = await site.get(headers={"X-Request-Id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert "server-timing" in first.headers
    assert "server-timing" not in answer.headers
    [seen] = site.observed
    assert seen.request_id == "mine"
    assert msgspec.structs.astuple(seen.labels) == ("GET", "/tasks", 200, "single", "shop", "hit")
    assert (seen.calls, seen.waited_s, seen.upstream_s) == (0, 0.0, 0.0)
    assert 0 < seen.duration_s < 10
    assert not web.observed


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/tasks?limit=3", {}),
        ("/tasks?", {"Prefer": "wait=1"}),
        ("/tasks", MANY_AUTH),
        ("/tasks", {"Accept-Encoding": "identity"}),
        ("/tasks", {"Cache-Control": "no-cache"}),
        ("/tasks", {"Cache-Control": "max-age=1"}),
        ("/tasks", {"Pragma": "no-cache"}),
    ],
)
async def test_different_requests_reach_the_gateway(site: CachedSite, path: str, headers: dict[str, str]) -> None:
    """A request with any difference that may change the response goes to the gateway."""
    await site.cached()
    await site.client.get(path + ("&app=shop" if "?" in path else "?app=shop"), headers=AUTH | headers)
    assert site.asked == 1


async def test_invalid_requests_are_rejected_despite_a_cached_response(site: CachedSite) -> None:
    """What the middleware rejects is rejected even if the response is cached: a body, and fields that are too large."""
    await site.cached()
    assert (await site.get(headers={"Content-Length": "1"})).status_code == 413
    assert (await site.get(headers={"Cookie": "x" * 16_384})).status_code == 431
    twice = [("Authorization", AUTH["Authorization"])] * 2
    assert (await site.client.get("/tasks", headers=twice)).status_code == 401


async def test_fields_of_the_largest_size_are_served_from_the_cache(site: CachedSite) -> None:
    """One byte more is rejected, as it is without a cached response."""
    sent = (await site.cached()).request.headers.raw
    left = FIELDS_MAX_BYTES - sum(len(name) + len(value) for name, value in sent) - len("Cookie")
    assert (await site.get(headers={"Cookie": "x" * left})).status_code == 200
    assert site.asked == 0
    assert (await site.get(headers={"Cookie": "x" * (left + 1)})).status_code == 431


async def test_conditional_requests_are_cached_separately(site: CachedSite) -> None:
    """A request with `If-None-Match` is cached separately: 304 again, without a body."""
    tag = (await site.cached()).headers["etag"]
    for _ in range(4):
        answer = await site.get(headers={"If-None-Match": tag})
        assert (answer.status_code, answer.content) == (304, b"")
        assert "content-length" not in answer.headers
    assert site.asked == 2
    assert (await site.get(headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize("wall_ahead_s", [0.0, 3600.0])
async def test_an_expired_credential_bypasses_the_cache(site: CachedSite, wall_ahead_s: float) -> None:
    """From the moment at which the credential expires, by the clock that checks it and not by the shared one, by which
    pages age, the rest of the service decides."""
    site.wall_ahead_s = wall_ahead_s
    site.until_s = NOW_S + wall_ahead_s + 2
    await site.cached()
    site.now_s += 1.99
    await site.get()
    assert site.asked == 0
    site.now_s += 0.01
    await site.get()
    assert site.asked == 1
    assert len(site.cache) == 0


async def test_a_clock_that_steps_back_makes_nothing_fresh(site: CachedSite) -> None:
    """An answer from what is now the future, by more than a second, is not sent again."""
    await site.cached()
    site.now_s = NOW_S - 4 - 1
    assert (await site.get()).headers["age"] == "0"
    assert site.asked == 0
    site.now_s -= 0.1
    await site.get()
    assert site.asked == 1


async def test_responses_are_cached_per_credential(site: CachedSite) -> None:
    """One credential's answer is sent to no other, be it unknown, of another scheme or of the same caller."""
    await site.cached()
    for field in ("", "Bearer", AUTH["Authorization"] + "x", AUTH["Authorization"][:-1], "Basic a2V5"):
        assert (await site.get(headers={"Authorization": field})).status_code == 401
    assert (await site.client.get("/tasks?app=shop")).status_code == 401
    assert (await site.get(headers={"Authorization": AUTH["Authorization"].replace("Bearer", "bearer")})).is_success
    assert site.asked == 1


async def test_dropped_responses_are_fetched_again(site: CachedSite) -> None:
    """Dropped answers are requested again, of that app alone; an answer in progress is not cached either."""
    await site.cached()
    site.cache.forget("news")
    await site.get()
    assert site.asked == 0
    site.cache.forget("shop")
    assert (len(site.cache), site.cache.size_bytes) == (0, 0)
    await site.get()
    assert site.asked == 1

    page = site.web.gateway.page

    async def forget_meanwhile(ask: Any) -> Any:
        site.cache.forget("shop")
        return await page(ask)

    site.web.gateway.page = forget_meanwhile  # type: ignore[method-assign]
    site.cache.forget()
    await site.get()
    assert len(site.cache) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"source": Source.STALE, "fetched_at_ms": int(NOW_S * 1000) - 20_000},
        {"lifetime_s": 0.5},
        {"fetched_at_ms": int(NOW_S * 1000) - 15_000},
    ],
)
async def test_stale_responses_are_not_cached(site: CachedSite, changes: dict[str, Any]) -> None:
    """Only fresh responses are cached."""
    site.web.gateway.changes = changes
    await site.cached()
    assert len(site.cache) == 0


@pytest.mark.parametrize("path", ["/livez", "/openapi.json", "/apps", "/nowhere", "/tasks?limit=0"])
async def test_problems_are_not_cached(site: CachedSite, path: str) -> None:
    """Neither problems nor anything without an age."""
    await site.cached(path)
    assert len(site.cache) == 0


async def test_a_forced_response_replaces_the_cached_one(site: CachedSite) -> None:
    """A caller that forced a fetch never gets the older answer afterwards."""
    await site.cached()
    site.web.gateway.changes = {"fetched_at_ms": int(NOW_S * 1000), "body": b'{"id":9}'}
    forced = await site.get(headers={"Cache-Control": "no-cache"})
    again = await site.get()
    assert again.content == forced.content
    assert again.headers["age"] == "0"


async def test_the_least_recently_used_is_evicted(web: Web) -> None:
    """Beyond the bound in bytes, the least recently requested responses are evicted."""
    site = CachedSite(web, max_bytes=20_000)
    for number in range(50):
        await site.cached(f"/tasks?offset={number}")
    assert 0 < len(site.cache) < 50
    assert site.cache.size_bytes <= 20_000 * 7 / 8, "the rest is for heads"
    await site.get("/tasks?offset=49")
    assert site.asked == 0
    none = CachedSite(web, max_bytes=0)
    await none.cached()
    assert len(none.cache) == 0


async def test_a_stream_is_not_served_from_a_cached_page(site: CachedSite) -> None:
    """A request for a stream after a page of the same address gets the stream, and the stream is never cached."""
    lines = {"Accept": "application/x-ndjson"}
    await site.cached()
    assert (await site.get(headers=lines)).headers["content-type"] == "application/x-ndjson"
    assert (await site.get(headers=lines)).content.count(b"\n") == 251
    assert (await site.get()).headers["content-type"] == "application/json"
    assert len(site.cache) == 1
    assert site.asked == 2 * 3


async def test_a_response_counts_with_its_body_and_fields(web: Web) -> None:
    """A response's body, its fields and their objects count against the bound."""
    site = CachedSite(web)
    response = await site.cached(headers={"Accept-Encoding": "identity"})
    changing = (b"age", b"cache-status", b"x-request-id")
    kept = [(name, value) for name, value in response.headers.raw if name.lower() not in changing]
    assert len(kept) > 5
    fields = sum(120 + len(name) + 2 * len(value) for name, value in kept)
    assert 1850 < site.cache.size_bytes - len(response.content) - fields < 1900, "that of an entry and its key"


@pytest.mark.parametrize("fields", [{"Content-Length": "0"}, {"Transfer-Encoding": "chunked"}])
async def test_requests_that_announce_a_body_are_not_served_from_the_cache(web: Web, fields: dict[str, str]) -> None:
    """Such requests are passed to the application, which rejects or accepts them."""
    site = CachedSite(web, way="repeated")
    await site.cached()
    await site.get(headers=fields)
    assert not site.observed, "only the cache reports to these observers"
    await site.get()
    assert len(site.observed) == 1
