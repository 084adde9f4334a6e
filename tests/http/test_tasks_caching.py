"""The caching of pages by HTTP: `Cache-Status`, `Cache-Control`, `If-None-Match` and `ETag`."""

import asyncio
import math
from typing import Any

import http_sf
import pytest

from service.model.freshness import CacheDirectives, StaleReason
from service.model.pages import Forward, Source
from tests.http.site import SlowToForce, Web

NO_CACHE = {"Cache-Control": "no-cache"}


STALE = {"source": Source.STALE, "lifetime_s": 1.0}


PAGES: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({}, {}, "taskgate; hit; ttl=11"),
    ({"source": Source.FETCHED, "forward": Forward.MISS}, {}, "taskgate; fwd=miss; ttl=11; stored"),
    ({"source": Source.FETCHED, "forward": Forward.STALE}, {}, "taskgate; fwd=stale; ttl=11; stored"),
    ({"source": Source.FETCHED, "forward": Forward.REQUEST}, NO_CACHE, "taskgate; fwd=request; ttl=11; stored"),
    ({"source": Source.JOINED, "forward": Forward.MISS}, {}, "taskgate; fwd=miss; ttl=11; stored; collapsed"),
    (STALE | {"stale_reason": StaleReason.RENEWING}, {}, "taskgate; hit; ttl=-3; detail=renewing"),
    (STALE | {"stale_reason": StaleReason.WAIT}, {}, "taskgate; hit; ttl=-3; detail=wait"),
    (STALE | {"stale_reason": StaleReason.ERROR}, {}, "taskgate; hit; ttl=-3; detail=error"),
    (
        STALE | {"stale_reason": StaleReason.ERROR, "forward": Forward.STALE},
        {},
        "taskgate; fwd=stale; ttl=-3; detail=error",
    ),
    (
        {"source": Source.STALE, "stale_reason": StaleReason.ERROR, "forward": Forward.REQUEST},
        {"Cache-Control": "max-age=0, stale-if-error=60"},
        "taskgate; fwd=request; ttl=11; detail=error",
    ),
]


@pytest.mark.parametrize(("changes", "headers", "status"), PAGES)
async def test_cache_status_says_where_a_page_came_from(
    web: Web, changes: dict[str, Any], headers: dict[str, str], status: str
) -> None:
    """`Cache-Status` says where the page came from, and `Age` and `Cache-Control` how fresh it is."""
    web.gateway.changes = changes
    answer = await web.get(headers=headers)
    assert answer.headers["cache-status"] == status
    assert answer.headers["age"] == "4"
    assert answer.headers["cache-control"] == f"private, max-age={int(changes.get('lifetime_s', 15))}"
    assert answer.headers["vary"] == "Accept, Accept-Encoding, Authorization"
    assert "last-modified" not in answer.headers
    [(cache, parameters)] = http_sf.parse(status.encode(), tltype="list")
    assert cache == http_sf.Token("taskgate")
    assert ("hit" in parameters) != ("fwd" in parameters), "RFC 9211, 2.1 and 2.2: one of the two"
    assert isinstance(parameters["ttl"], int)
    assert parameters.get("fwd") != http_sf.Token("stale") or "stored" in parameters or parameters["ttl"] <= 0
    assert parameters.get("fwd") != http_sf.Token("miss") or "stored" in parameters


DEMANDS = [
    ("no-cache", CacheDirectives(no_cache=True)),
    ("max-age=5, min-fresh=3", CacheDirectives(max_age_s=5, min_fresh_s=3)),
    ('MAX-AGE="5"', CacheDirectives(max_age_s=5)),
    ("max-stale", CacheDirectives(max_stale_s=math.inf)),
    ("max-stale=60,only-if-cached", CacheDirectives(max_stale_s=60, only_if_cached=True)),
    ("stale-if-error=7", CacheDirectives(stale_if_error_s=7)),
    ("max-age=5, max-age=6", CacheDirectives(max_age_s=5)),
    ("max-age=" + "9" * 40, CacheDirectives(max_age_s=2**31)),
    ("max-age=0000000000000005", CacheDirectives(max_age_s=5)),
    ("max-age", CacheDirectives()),
    ("max-age=", CacheDirectives()),
    ("max-age=-1, max-stale=x", CacheDirectives()),
    ("max-age=1.5", CacheDirectives()),
    ("max-stale=", CacheDirectives()),
    ("no-cache=1", CacheDirectives()),
    ('x="no-cache, max-age=3"', CacheDirectives()),
    ("@@@, no-cache", CacheDirectives(no_cache=True)),
    ("no-store, foo=bar", CacheDirectives()),
]


@pytest.mark.parametrize(("field", "directives"), DEMANDS)
async def test_cache_control_directives_of_requests_are_read(web: Web, field: str, directives: CacheDirectives) -> None:
    """`Cache-Control` of requests is read as RFC 9111 and 5861 define it; unreadable directives are ignored."""
    await web.get(headers={"Cache-Control": field})
    assert web.gateway.requests[0].directives == directives


async def test_pragma_counts_only_without_cache_control(web: Web) -> None:
    """`Pragma: no-cache` counts only without `Cache-Control`."""
    await web.get(headers={"Pragma": "no-cache"})
    await web.get(headers={"Pragma": "no-cache", "Cache-Control": "max-stale"})
    assert [ask.directives.no_cache for ask in web.gateway.requests] == [True, False]


async def test_a_caller_that_may_not_force_can_only_accept_older() -> None:
    """A caller without permission to force a fetch can accept older answers, but not bound their age.

    The answer says so.
    """
    web = Web(callers=SlowToForce())
    field = "no-cache, max-age=0, min-fresh=9, max-stale=8, only-if-cached, stale-if-error=7"
    answers = [
        await web.get(headers=headers)
        for headers in ({"Cache-Control": field}, {"Pragma": "no-cache"}, {"Cache-Control": "max-stale=8"})
    ]
    assert [ask.directives for ask in web.gateway.requests] == [
        CacheDirectives(max_stale_s=8, only_if_cached=True, stale_if_error_s=7, is_force_denied=True),
        CacheDirectives(is_force_denied=True),
        CacheDirectives(max_stale_s=8),
    ]
    denied, plain = "taskgate; hit; ttl=11; detail=force-denied", "taskgate; hit; ttl=11"
    assert [answer.headers["cache-status"] for answer in answers] == [denied, denied, plain]
    web.gateway.changes = {"source": Source.STALE, "stale_reason": StaleReason.ERROR}
    both = (await web.get(headers={"Pragma": "no-cache"})).headers["cache-status"]
    [(_, parameters)] = http_sf.parse(both.encode(), tltype="list")
    assert parameters["detail"] == "error, force-denied"


CONDITIONS = [
    ("{tag}", 304),
    ("{strong}", 304),
    ('"a", {tag}', 304),
    ('"a,b" , {strong} ,', 304),
    ("*", 304),
    ('"a"', 200),
    ('"a", *', 200),
    ('{tag}"', 200),
    ("w/{strong}", 200),
    ("", 200),
]


@pytest.mark.parametrize(("field", "status"), CONDITIONS)
async def test_a_client_that_holds_the_page_gets_304(web: Web, field: str, status: int) -> None:
    """A caller that holds the page gets 304 without a body, but with the fields that its cache needs."""
    tag = (await web.get()).headers["etag"]
    answer = await web.get(
        headers={"If-None-Match": field.replace("{tag}", tag).replace("{strong}", tag.removeprefix("W/"))}
    )
    assert answer.status_code == status
    if status == 304:
        assert answer.content == b""
        for name in ("etag", "cache-control", "vary", "age", "cache-status", "x-request-id"):
            assert name in answer.headers
        assert "content-length" not in answer.headers
        assert "content-type" not in answer.headers


async def test_the_entity_tag_depends_on_the_tasks(web: Web) -> None:
    """The entity tag is weak, the same for the same tasks on another replica, and different for another slice."""
    first, same, other = await web.get(), await Web().get(), await web.get("/tasks?limit=3")
    assert first.headers["etag"] == same.headers["etag"] != other.headers["etag"]
    assert first.headers["etag"].startswith('W/"')


async def test_a_page_served_from_memory_is_the_same(web: Web) -> None:
    """A page that is served without waiting is the same in every respect."""
    asked = "/tasks?q=a&offset=20&limit=2"
    obtained = await web.get(asked, {"Prefer": "wait=5"})
    web.gateway.remembers = True
    web.gateway.go = asyncio.Event()
    recalled = await web.get(asked, {"Prefer": "wait=5"})
    assert recalled.content == obtained.content
    answers = [{**answer.headers, "x-request-id": ""} for answer in (recalled, obtained)]
    assert answers[0] == answers[1]
    assert [each.labels for each in web.observed] == [web.observed[0].labels] * 2
    assert web.gateway.requests[0].slice == web.gateway.requests[1].slice
