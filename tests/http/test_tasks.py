"""`GET /tasks` over HTTP, with a fake gateway."""

import asyncio
import math
from typing import Any

import http_sf
import msgspec
import pytest

from service.model.budgets import BudgetNote
from service.model.freshness import CacheDirectives, StaleReason
from service.model.origin import FetchCost
from service.model.pages import Forward, Source
from service.model.queries import At, FromNow, Slice, Sort
from service.model.streams import Only
from service.web.settings import default_web_settings
from tests.http.site import AUTH, MANY_AUTH, SlowToForce, Web


async def test_body(web: Web) -> None:
    """The body has the members of the contract, in its order, and the tasks as the gateway gave them."""
    web.gateway.changes = {"total": 95, "body": b'{"id":1,"title":"a"},{"id":2,"title":"b"}'}
    answer = await web.get("/tasks?app=shop&q=sp%C3%A4t&offset=20&limit=2")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.content.decode() == (
        '{"app":"shop","since":"2025-05-11T21:46:40Z","until":"2025-07-08T18:40:00Z","sort":"-scheduled_at",'
        '"q":"spät","status":[],"type":[],"total":95,"offset":20,"limit":2,"fetched_at":"2025-06-15T15:06:36Z","consistent":true,"missing":0,'
        '"tasks":[{"id":1,"title":"a"},{"id":2,"title":"b"}]}'
    )


async def test_defaults(web: Web) -> None:
    """Without parameters a caller gets the first twenty of its only app, thirty days either way, in default order."""
    await web.get("/tasks")
    ask = web.gateway.requests[0]
    assert ask.query.app == "shop"
    assert (ask.query.since, ask.query.until) == (FromNow(offset_s=-30 * 86_400), FromNow(offset_s=30 * 86_400))
    assert (ask.query.sort, ask.query.keyword, ask.slice) == (Sort.SCHEDULED_DESC, None, Slice(offset=0, limit=20))
    assert (ask.patience_s, ask.directives) == (10.0, CacheDirectives())


async def test_everything_said(web: Web) -> None:
    """All parameters reach the gateway."""
    path = "/tasks?limit=7&offset=9&sort=created_at&since=2025-05-01&until=2025-05-02T00:00:00%2B02:00&q=a+b&app=news"
    answer = await web.client.get(path, headers=MANY_AUTH)
    assert answer.status_code == 200
    ask = web.gateway.requests[0]
    assert (ask.query.app, ask.query.sort, ask.query.keyword) == ("news", Sort.CREATED, "a b")
    assert (ask.query.since, ask.query.until) == (At(epoch_s=1_746_057_600), At(epoch_s=1_746_136_800))
    assert ask.slice == Slice(offset=9, limit=7)
    assert (ask.caller.name, ask.caller.weight) == ("several", 3.0)


FAULTS = [
    ("limit=0", {"limit"}),
    ("limit=101", {"limit"}),
    ("limit=%2B1", {"limit"}),
    ("limit=+1", {"limit"}),
    ("limit=1_0", {"limit"}),
    ("limit=1e1", {"limit"}),
    ("limit=NaN", {"limit"}),
    ("limit=%EF%BC%91", {"limit"}),
    ("limit=1.0", {"limit"}),
    ("offset=-1", {"offset"}),
    ("offset=2147483548", {"offset"}),
    ("offset=99999999999999999999", {"offset"}),
    ("offset=", {"offset"}),
    ("offset", {"offset"}),
    ("q=" + "x" * 129, {"q"}),
    ("q=a%00b", {"q"}),
    ("q=a%0Ab", {"q"}),
    ("q=a%C2%85b", {"q"}),
    ("q=%FF", {"q"}),
    ("q=%ED%A0%80", {"q"}),
    ("q=%", {"q"}),
    ("q=%zz", {"q"}),
    ("sort=title", {"sort"}),
    ("sort=Scheduled_At", {"sort"}),
    ("since=2025-05-01T00:00:00", {"since"}),
    ("since=yesterday", {"since"}),
    ("since=P1M", {"since"}),
    ("since=2025-05-02&until=2025-05-01", {"since"}),
    ("since=P1D&until=-P1D", {"since"}),
    ("since=P31D", {"since"}),
    ("q=a&q=b", {"q"}),
    ("q=a&q=a&q=a", {"q"}),
    ("limit=0&limit=3", {"limit"}),
    ("page=1", {"page"}),
    ("Limit=1", {"Limit"}),
    ("limit=0&offset=x&q=%00&sort=y&since=z&until=w&n=1", {"limit", "offset", "q", "sort", "since", "until", "n"}),
]


@pytest.mark.parametrize(("query", "named"), FAULTS)
async def test_faults(web: Web, query: str, named: set[str]) -> None:
    """All faults are reported in one 400, each with its parameter, and the gateway is not called."""
    answer = await web.get(f"/tasks?{query}")
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["type"] == "/problems/bad-request"
    assert {error["parameter"] for error in problem["errors"]} == named
    assert len(problem["errors"]) == len(named)
    assert web.gateway.requests == []


async def test_faults_are_bounded(web: Web) -> None:
    """A thousand unknown parameters with ugly names cost twenty short faults, and no value is repeated."""
    query = "&".join(f"%3Cscript%3E{number}{'x' * 60}=hunter2" for number in range(80))
    problem = (await web.get(f"/tasks?{query}")).json()
    assert len(problem["errors"]) == 20
    for error in problem["errors"]:
        assert len(error["parameter"]) <= 40
        assert "<" not in error["parameter"]
    assert "hunter2" not in msgspec.json.encode(problem).decode()


async def test_app_needed(web: Web) -> None:
    """A caller that may read two apps must name one."""
    answer = await web.client.get("/tasks", headers=MANY_AUTH)
    assert [error["parameter"] for error in answer.json()["errors"]] == ["app"]


async def test_unknown_and_foreign_apps_look_alike(web: Web) -> None:
    """A nonexistent app and another caller's app get the same 404."""
    foreign, unknown = (await web.get("/tasks?app=news")).json(), (await web.get("/tasks?app=nope")).json()
    for problem in (foreign, unknown):
        del problem["request_id"], problem["instance"]
    assert foreign == unknown
    assert foreign["type"] == "/problems/unknown-app"
    assert foreign["status"] == 404


async def test_range_max() -> None:
    """A range longer than the longest allowed is refused."""
    web = Web(settings=msgspec.structs.replace(default_web_settings(), range_max_days=7))
    assert (await web.get("/tasks?since=-P6D&until=PT0S")).status_code == 200
    answer = await web.get("/tasks?since=-P8D&until=PT0S")
    assert [error["parameter"] for error in answer.json()["errors"]] == ["since"]


async def test_small_blocks_bound_the_limit() -> None:
    """No slice is larger than a block."""
    web = Web(settings=msgspec.structs.replace(default_web_settings(), block_size=10))
    assert (await web.get("/tasks")).json()["limit"] == 10
    assert (await web.get("/tasks?limit=11")).status_code == 400


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
async def test_cache_status(web: Web, changes: dict[str, Any], headers: dict[str, str], status: str) -> None:
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


async def test_budget_and_timing(web: Web) -> None:
    """A page that needed the budget reports its state, and how long it waited."""
    note = BudgetNote(calls=5, window_s=1.0, free=2, reset_s=0.2)
    web.gateway.changes = {"source": Source.FETCHED, "budget": note}
    web.gateway.cost = FetchCost(waited_s=0.2124, upstream_s=0.0831, calls=1)
    answer = await web.get()
    assert answer.headers["ratelimit-policy"] == '"shop";q=5;w=1'
    assert answer.headers["ratelimit"] == '"shop";r=2;t=1'
    assert answer.headers["server-timing"] == "line;dur=212.4, upstream;dur=83.1"
    assert "ratelimit" not in (await Web().get()).headers


LINKS = [
    ("", 95, {"first": 0, "next": 20, "last": 80}),
    ("offset=20", 95, {"first": 0, "prev": 0, "next": 40, "last": 80}),
    ("offset=10", 95, {"first": 0, "prev": 0, "next": 30, "last": 80}),
    ("offset=80", 95, {"first": 0, "prev": 60, "last": 80}),
    ("offset=75&limit=20", 95, {"first": 0, "prev": 55, "last": 80}),
    ("offset=500", 95, {"first": 0, "prev": 80, "last": 80}),
    ("offset=20", 0, {"first": 0, "prev": 0, "last": 0}),
    ("", 20, {"first": 0, "last": 0}),
    ("%6Fffset=20&q=%22%3E%26+x", 21, {"first": 0, "prev": 0, "last": 20}),
]


@pytest.mark.parametrize(("query", "total", "offsets"), LINKS)
async def test_links(web: Web, query: str, total: int, offsets: dict[str, int]) -> None:
    """Each link leads to the slice that it names, with the caller's own parameters, and none leads beyond the end."""
    web.gateway.changes = {"total": total}
    answer = await web.get(f"/tasks?{query}")
    asked = web.gateway.requests[0]
    assert set(answer.links) == set(offsets)
    for rel, offset in offsets.items():
        url = answer.links[rel]["url"]
        assert url.startswith("/tasks?")
        assert (await web.get(url)).status_code == 200
        followed = web.gateway.requests[-1]
        assert followed.slice == Slice(offset=offset, limit=asked.slice.limit)
        assert followed.query == asked.query


PATIENCE = [
    ("wait=5", 5.0, "wait=5"),
    ("wait=0", 0.0, "wait=0"),
    ('wait="5"', 5.0, "wait=5"),
    ("WAIT = 5", 5.0, "wait=5"),
    ("respond-async, wait=5; x=y", 5.0, "wait=5"),
    ("wait=5, wait=6", 5.0, "wait=5"),
    ("wait=99", 30.0, "wait=30"),
    ("wait=" + "9" * 500, 30.0, "wait=30"),
    ("wait=1.5", 10.0, None),
    ("wait=-1", 10.0, None),
    ("wait", 10.0, None),
    ("wait=", 10.0, None),
    ('wait="5', 10.0, None),
    ("wait=5x, wait=6", 10.0, None),
    ('foo="a, wait=3"', 10.0, None),
    (",,;=", 10.0, None),
]


@pytest.mark.parametrize(("field", "patience_s", "applied"), PATIENCE)
async def test_patience(web: Web, field: str, patience_s: float, applied: str | None) -> None:
    """`Prefer: wait` sets the patience within the caller's bound, and the answer names the applied value."""
    answer = await web.get(headers={"Prefer": field})
    assert web.gateway.requests[0].patience_s == patience_s
    assert answer.headers.get("preference-applied") == applied


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
async def test_demands(web: Web, field: str, directives: CacheDirectives) -> None:
    """Request `Cache-Control` is read as RFC 9111 and 5861 define it; unreadable directives are ignored."""
    await web.get(headers={"Cache-Control": field})
    assert web.gateway.requests[0].directives == directives


async def test_pragma(web: Web) -> None:
    """`Pragma: no-cache` counts only without `Cache-Control`."""
    await web.get(headers={"Pragma": "no-cache"})
    await web.get(headers={"Pragma": "no-cache", "Cache-Control": "max-stale"})
    assert [ask.directives.no_cache for ask in web.gateway.requests] == [True, False]


async def test_who_may_not_force() -> None:
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
async def test_if_none_match(web: Web, field: str, status: int) -> None:
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


async def test_etag_is_of_the_list(web: Web) -> None:
    """The entity tag is weak, the same for the same tasks on another replica, and different for another slice."""
    first, same, other = await web.get(), await Web().get(), await web.get("/tasks?limit=3")
    assert first.headers["etag"] == same.headers["etag"] != other.headers["etag"]
    assert first.headers["etag"].startswith('W/"')


@pytest.mark.parametrize("path", ["/tasks", "/apps", "/livez", "/docs", "/problems", "/nowhere"])
async def test_head(web: Web, path: str) -> None:
    """HEAD answers as GET does, without the body."""
    got = await web.get(path)
    headed = await web.client.head(path, headers=AUTH)
    assert headed.status_code == got.status_code
    assert headed.content == b""
    drop = {"x-request-id"}
    assert {k: v for k, v in headed.headers.items() if k not in drop} == {
        k: v for k, v in got.headers.items() if k not in drop
    }


async def test_filters_reach_the_gateway_and_the_body(web: Web) -> None:
    """In the order of the contract, with the bound of the settings; links keep them."""
    web.settings = msgspec.structs.replace(web.settings, filter_max_blocks=3)
    web.gateway.changes = {"only": Only(statuses=("pending", "dispatched"), types=("tag",)), "consistent": False}
    answer = await web.get("/tasks?status=dispatched,pending&type=tag")
    [ask] = web.gateway.requests
    assert ask.only == Only(statuses=("pending", "dispatched"), types=("tag",))
    assert ask.filter_max_blocks == 3
    body = answer.json()
    assert (body["status"], body["type"], body["consistent"]) == (["pending", "dispatched"], ["tag"], False)
    assert "status=dispatched,pending&type=tag" in answer.links["next"]["url"]


async def test_a_page_in_memory(web: Web) -> None:
    """A page that nothing has to be awaited for is the same in every respect."""
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


async def test_options(web: Web) -> None:
    """OPTIONS lists the methods, as for every route."""
    for path in ("/tasks", "/apps"):
        answer = await web.client.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert "content-length" not in answer.headers
    assert [each.labels.route for each in web.observed] == ["/tasks", "/apps"]
