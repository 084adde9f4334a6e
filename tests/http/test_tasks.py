"""`GET /tasks` over HTTP, with a fake gateway."""

import msgspec
import pytest

from service.model.budgets import BudgetNote
from service.model.freshness import CacheDirectives
from service.model.origin import FetchCost
from service.model.pages import Source
from service.model.queries import At, FromNow, Slice, Sort
from service.model.streams import TaskFilter
from service.web.settings import default_web_settings
from tests.http.site import AUTH, MANY_AUTH, Web


async def test_the_body_has_the_members_of_the_contract(web: Web) -> None:
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


async def test_without_parameters_the_defaults_apply(web: Web) -> None:
    """Without parameters a caller gets the first twenty of its only app, thirty days either way, in default order."""
    await web.get("/tasks")
    ask = web.gateway.requests[0]
    assert ask.query.app == "shop"
    assert (ask.query.since, ask.query.until) == (FromNow(offset_s=-30 * 86_400), FromNow(offset_s=30 * 86_400))
    assert (ask.query.sort, ask.query.keyword, ask.slice) == (Sort.SCHEDULED_DESC, None, Slice(offset=0, limit=20))
    assert (ask.patience_s, ask.directives) == (10.0, CacheDirectives())


async def test_all_parameters_reach_the_gateway(web: Web) -> None:
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
async def test_all_faults_are_reported_in_one_400(web: Web, query: str, named: set[str]) -> None:
    """All faults are reported in one 400, each with its parameter, and the gateway is not called."""
    answer = await web.get(f"/tasks?{query}")
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["type"] == "/problems/bad-request"
    assert {error["parameter"] for error in problem["errors"]} == named
    assert len(problem["errors"]) == len(named)
    assert web.gateway.requests == []


async def test_faults_are_bounded(web: Web) -> None:
    """A thousand unknown parameters with odd names yield at most twenty short faults, and no value is repeated."""
    query = "&".join(f"%3Cscript%3E{number}{'x' * 60}=hunter2" for number in range(80))
    problem = (await web.get(f"/tasks?{query}")).json()
    assert len(problem["errors"]) == 20
    for error in problem["errors"]:
        assert len(error["parameter"]) <= 40
        assert "<" not in error["parameter"]
    assert "hunter2" not in msgspec.json.encode(problem).decode()


async def test_a_caller_of_two_apps_must_name_one(web: Web) -> None:
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


async def test_a_range_that_is_too_long_is_refused() -> None:
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


async def test_a_page_that_needed_the_budget_reports_budget_and_timing(web: Web) -> None:
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
async def test_each_link_leads_to_its_slice(web: Web, query: str, total: int, offsets: dict[str, int]) -> None:
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
async def test_prefer_wait_sets_the_patience(web: Web, field: str, patience_s: float, applied: str | None) -> None:
    """`Prefer: wait` sets the patience within the caller's bound, and the answer names the applied value."""
    answer = await web.get(headers={"Prefer": field})
    assert web.gateway.requests[0].patience_s == patience_s
    assert answer.headers.get("preference-applied") == applied


@pytest.mark.parametrize("path", ["/tasks", "/apps", "/livez", "/docs", "/problems", "/nowhere"])
async def test_head_answers_as_get_does(web: Web, path: str) -> None:
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
    web.gateway.changes = {"only": TaskFilter(statuses=("pending", "dispatched"), types=("tag",)), "consistent": False}
    answer = await web.get("/tasks?status=dispatched,pending&type=tag")
    [ask] = web.gateway.requests
    assert ask.only == TaskFilter(statuses=("pending", "dispatched"), types=("tag",))
    assert ask.filter_max_blocks == 3
    body = answer.json()
    assert (body["status"], body["type"], body["consistent"]) == (["pending", "dispatched"], ["tag"], False)
    assert "status=dispatched,pending&type=tag" in answer.links["next"]["url"]


async def test_options_lists_the_methods(web: Web) -> None:
    """OPTIONS lists the methods, as for every route."""
    for path in ("/tasks", "/apps"):
        answer = await web.client.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert "content-length" not in answer.headers
    assert [each.labels.route for each in web.observed] == ["/tasks", "/apps"]
