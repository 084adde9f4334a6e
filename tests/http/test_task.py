"""`GET /tasks/{id}` over HTTP, with a fake gateway."""

import asyncio

import msgspec
import pytest

from service.model.budgets import BudgetNote
from service.model.calls import CallKind
from service.model.errors import UnknownTask, WaitTooLong
from service.model.freshness import CacheDirectives, StaleReason
from service.model.origin import FetchCost
from service.model.pages import Forward, Source
from service.web.headers.encoding import SMALL_BYTES
from tests.http.fake_gateway import task_of
from tests.http.site import AUTH, MANY_AUTH, Web

NOTE = BudgetNote(kind=CallKind.GET, calls=5, window_s=1.0, free=4, reset_s=0.3)


async def test_the_body_is_the_same_as_in_lists(web: Web) -> None:
    """The body is the task's JSON and nothing else; the fields tell its age and where it came from."""
    answer = await web.get("/tasks/1000?app=shop")
    assert answer.status_code == 200
    assert answer.content == msgspec.json.encode(task_of(0))
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["age"] == "4"
    assert answer.headers["cache-control"] == "private, max-age=15"
    assert answer.headers["cache-status"] == "taskgate; hit; ttl=11"
    assert answer.headers["vary"] == "Accept, Accept-Encoding, Authorization"
    ask = web.gateway.task_requests[0]
    assert (ask.app, ask.id, ask.caller.name, ask.patience_s) == ("shop", 1000, "single", 10.0)
    assert ask.directives == CacheDirectives()
    record = web.observed[0]
    assert (record.labels.route, record.labels.app, record.labels.outcome) == ("/tasks/{id}", "shop", "hit")


async def test_patience_and_directives_reach_the_gateway(web: Web) -> None:
    """They are passed on, as for pages."""
    headers = {"Prefer": "wait=3", "Cache-Control": "no-cache, stale-if-error=60"}
    answer = await web.get("/tasks/9223372036854775807", headers)
    assert answer.json()["type"] == "/problems/unknown-task"
    assert answer.headers["preference-applied"] == "wait=3"
    ask = web.gateway.task_requests[0]
    assert (ask.id, ask.patience_s) == (2**63 - 1, 3.0)
    assert ask.directives == CacheDirectives(no_cache=True, stale_if_error_s=60)


async def test_a_fetched_task_names_the_budget_of_its_kind(web: Web) -> None:
    """`RateLimit` names the budget for single tasks, so that a client does not confuse it with that for lists."""
    web.gateway.changes = {"source": Source.FETCHED, "forward": Forward.MISS, "budget": NOTE}
    web.gateway.cost = FetchCost(waited_s=0.25, upstream_s=0.08, calls=1)
    answer = await web.get("/tasks/1007")
    assert answer.headers["cache-status"] == "taskgate; fwd=miss; ttl=11; stored"
    assert answer.headers["ratelimit-policy"] == '"shop/get";q=5;w=1'
    assert answer.headers["ratelimit"] == '"shop/get";r=4;t=1'
    assert answer.headers["server-timing"] == "line;dur=250.0, upstream;dur=80.0"
    assert web.observed[0].waited_s == 0.25


async def test_a_stale_task_says_so(web: Web) -> None:
    """`Cache-Status` has the reason, and the log has the outcome `fallback`."""
    web.gateway.changes = {"source": Source.STALE, "stale_reason": StaleReason.ERROR, "lifetime_s": 2.0}
    answer = await web.get("/tasks/1007")
    assert answer.headers["cache-status"] == "taskgate; hit; ttl=-2; detail=error"
    assert web.observed[0].labels.outcome == "fallback"


async def test_a_client_that_holds_the_task_gets_304(web: Web) -> None:
    """The tag depends on the task alone, and a HEAD has the fields of a GET."""
    first = await web.get("/tasks/1007")
    web.gateway.changes = {"lifetime_s": 600.0, "source": Source.FETCHED, "budget": NOTE}
    again = await web.get("/tasks/1007", {"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == "private, max-age=600"
    web.gateway.changes = {"body": msgspec.json.encode(task_of(8))}
    assert (await web.get("/tasks/1007", {"If-None-Match": first.headers["etag"]})).status_code == 200
    head = await web.client.head("/tasks/1007", headers=AUTH)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(msgspec.json.encode(task_of(8))))


async def test_a_large_task_is_compressed(web: Web) -> None:
    """A large task is compressed if the caller accepts it; most are too small."""
    body = msgspec.json.encode(task_of(0, content=b'{"a":"' + b"x" * SMALL_BYTES + b'"}'))
    web.gateway.changes = {"body": body}
    answer = await web.get("/tasks/1007", {"Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == body
    web.gateway.changes = {}
    assert "content-encoding" not in (await web.get("/tasks/1007", {"Accept-Encoding": "gzip"})).headers


@pytest.mark.parametrize(
    "text", ["0", "-1", "007", "+7", "7.0", "1e3", "x", "9223372036854775808", "1" * 40, "%D9%A7", "7%20", "0x7"]
)
async def test_an_invalid_id_is_a_bad_request(web: Web, text: str) -> None:
    """An invalid id gets a 400 that names the parameter; the gateway is not called."""
    answer = await web.get(f"/tasks/{text}")
    assert answer.status_code == 400
    assert answer.json()["type"] == "/problems/bad-request"
    assert [fault["parameter"] for fault in answer.json()["errors"]] == ["id"]
    assert not web.gateway.task_requests


async def test_all_faults_are_reported_at_once(web: Web) -> None:
    """One 400 lists the faults of the id and the parameters, and the missing app."""
    answer = await web.client.get("/tasks/x?limit=3", headers=MANY_AUTH)
    assert [fault["parameter"] for fault in answer.json()["errors"]] == ["id", "limit", "app"]


@pytest.mark.parametrize("path", ["/tasks/7/8", "/tasks/7%2F8"])
async def test_a_longer_path_is_not_found(web: Web, path: str) -> None:
    """A path with more segments than the id is not found."""
    assert (await web.get(path)).json()["type"] == "/problems/not-found"


async def test_a_foreign_app_is_unknown(web: Web) -> None:
    """Reading a task takes the same right as reading the app's lists."""
    answer = await web.get("/tasks/1007?app=news")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-app")
    assert (await web.client.get("/tasks/1007?app=news", headers=MANY_AUTH)).status_code == 200
    assert (await web.client.get("/tasks/1007")).status_code == 401


async def test_an_unknown_task_is_a_separate_problem(web: Web) -> None:
    """An unknown task gets a 404 of its own type, other than that of an unknown app, with the budget."""
    error = UnknownTask()
    error.budget = NOTE
    web.gateway.error = error
    answer = await web.get("/tasks/1007")
    assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-task")
    assert answer.headers["ratelimit-policy"] == '"shop/get";q=5;w=1'
    assert answer.headers["cache-control"] == "no-store"
    assert web.observed[0].labels.outcome == "unknown-task"


async def test_a_refusal_names_the_budget(web: Web) -> None:
    """A refused request shows the budget, as for pages."""
    error = WaitTooLong(place=3, estimate_s=12.0, patience_s=10.0)
    error.budget = NOTE
    web.gateway.error = error
    answer = await web.get("/tasks/1007")
    assert (answer.status_code, answer.json()["place"]) == (503, 3)
    assert answer.headers["ratelimit"] == '"shop/get";r=4;t=1'


async def test_a_task_is_sent_as_json_only(web: Web) -> None:
    """A watch of one task gets 406, and only GET, HEAD and OPTIONS are allowed."""
    assert (await web.get("/tasks/1007", {"Accept": "text/event-stream"})).status_code == 406
    assert (await web.client.delete("/tasks/1007", headers=AUTH)).headers["allow"] == "GET, HEAD, OPTIONS"


async def test_requests_for_tasks_and_pages_share_the_callers_bound(web: Web) -> None:
    """Five of both together may wait; the sixth is refused."""
    web.gateway.go = asyncio.Event()
    paths = ("/tasks/1001", "/tasks/1002", "/tasks/1003", "/tasks", "/tasks?offset=1")
    waiting = [asyncio.create_task(web.get(path)) for path in paths]
    async with asyncio.timeout(20):
        while web.gateway.waiting < len(paths):
            await asyncio.sleep(0)
    assert (await web.get("/tasks/1004")).json()["type"] == "/problems/line-full"
    web.gateway.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
