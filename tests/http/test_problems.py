"""Errors over HTTP: each error of the tree becomes its problem, and so do HTTP's own errors."""

import math
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from service.model import errors
from service.model.budgets import BudgetNote
from service.model.errors import Refused, TaskgateError
from service.observe.outcomes import DECLINED, NOT_WAITED, REFUSED
from service.web.problems.from_errors import slug_of
from service.web.problems.types import PROBLEM_TYPES
from tests.http.site import Web

CASES = [
    (errors.NotAllowed("no"), 403, "not-allowed", None, {}),
    (errors.UnknownApp(), 404, "unknown-app", None, {}),
    (errors.UnknownTask(), 404, "unknown-task", None, {"detail": "The app has no task with this id."}),
    (errors.KeysUnavailable(), 503, "keys-unavailable", 2, {}),
    (errors.SigningKeyUnknown(presented=True), 401, "unauthenticated", None, {}),
    (
        errors.WaitTooLong(place=7, estimate_s=12.34567, patience_s=10),
        503,
        "wait-too-long",
        6,
        {"place": 7, "estimate_seconds": 12.346},
    ),
    (
        errors.WaitTooLong(place=7, estimate_s=math.inf, patience_s=10),
        503,
        "wait-too-long",
        86_400,
        {"place": 7},
    ),
    (errors.LineFull(bound=9, retry_after_s=0.2), 429, "line-full", 1, {"bound": 9}),
    (errors.TooManyWatchers(bound=7), 429, "too-many-watchers", 30, {"bound": 7}),
    (errors.RangeTooWide(total=900, bound=800), 422, "range-too-wide", None, {"total": 900, "bound": 800}),
    (errors.NothingStored(), 504, "nothing-stored", None, {}),
    (errors.ShuttingDown(), 503, "shutting-down", 1, {}),
    (errors.Refused("paused", retry_after_s=1.01), 503, "no-fetch-now", 2, {}),
    (errors.StoreUnavailable("busy"), 503, "store-unavailable", 2, {}),
    (errors.UpstreamTimeout("late", app="shop"), 504, "upstream-timeout", None, {}),
    (errors.UpstreamUnreachable("gone", app="shop"), 502, "upstream-unreachable", None, {}),
    (errors.UpstreamBroken("not JSON", app="shop"), 502, "upstream-broken", None, {}),
    (errors.UpstreamHTTPStatus(500, app="shop"), 502, "upstream-http-status", None, {}),
    (
        errors.UpstreamRefused(app="shop", code=1, text="t", advice="a"),
        502,
        "upstream-refused",
        None,
        {"upstream_code": 1, "upstream_text": "t"},
    ),
    (
        errors.QueryRefused(app="shop", code=90104, text="t", advice="a"),
        422,
        "query-refused",
        None,
        {"upstream_code": 90104, "upstream_text": "t"},
    ),
    (
        errors.CallsStopped(app="shop", code=70003, text="t", advice="wrong key", stopped_for_s=59.2),
        502,
        "calls-stopped",
        60,
        {"upstream_code": 70003, "upstream_text": "t", "detail": "wrong key"},
    ),
    (
        errors.Throttled(app="shop", code=60007, text="t", advice="a"),
        503,
        "throttled",
        1,
        {"upstream_code": 60007, "upstream_text": "t"},
    ),
    (errors.StreamTooLong(bound=9), 413, "stream-too-long", None, {"bound": 9}),
    (errors.UpstreamHTTPStatus(503, app="shop", retry_after_s=6.2), 502, "upstream-http-status", 7, {}),
    (errors.UpstreamError("failed", app="shop"), 502, "upstream-failed", None, {}),
]


async def test_an_error_shows_the_budget_that_it_needed(web: Web) -> None:
    """A request refused for lack of a call shows the budget; one that needed none does not."""
    web.gateway.error = errors.WaitTooLong(place=7, estimate_s=12, patience_s=10)
    web.gateway.error.budget = BudgetNote(calls=5, window_s=1.0, free=0, reset_s=0.2)
    refused = await web.get()
    assert refused.headers["ratelimit-policy"] == '"shop";q=5;w=1'
    assert refused.headers["ratelimit"] == '"shop";r=0;t=1'
    web.gateway.error = errors.NothingStored()
    assert "ratelimit" not in (await web.get()).headers


@pytest.mark.parametrize(("error", "status", "slug", "retry_after", "members"), CASES)
async def test_each_error_becomes_its_problem(
    web: Web, error: Exception, status: int, slug: str, retry_after: int | None, members: dict[str, object]
) -> None:
    """Each error becomes its problem, with its members, `Retry-After` if a retry may help, and a page."""
    web.gateway.error = error
    answer = await web.get(headers={"Prefer": "wait=3", "X-Request-Id": "a.b"})
    problem = answer.json()
    assert answer.status_code == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["preference-applied"] == "wait=3"
    assert answer.headers.get("retry-after") == (None if retry_after is None else str(retry_after))
    assert problem["type"] == f"/problems/{slug}"
    assert problem["request_id"] == "a.b"
    assert problem["instance"] == "urn:taskgate:request:a.b"
    extra = set(problem) - {"type", "title", "status", "detail", "instance", "request_id"}
    assert extra == set(members) - {"detail"}
    assert members.items() <= problem.items()
    assert (await web.client.get(problem["type"])).status_code == 200
    assert web.observed[0].labels.outcome == slug


def leaves(cls: type[Exception]) -> Iterator[type[Exception]]:
    """Return a class and all its subclasses."""
    yield cls
    for each in cls.__subclasses__():
        yield from leaves(each)


def test_every_error_has_a_problem() -> None:
    """No error of the tree falls back to another's problem."""
    tested = {type(error) for error, *_ in CASES} | {TaskgateError, errors.BadRequest, errors.Unauthenticated}
    assert {cls for cls in leaves(TaskgateError) if cls.__module__ == errors.__name__} == tested


async def test_a_fault_is_logged_and_not_shown(web: Web) -> None:
    """A 500 is logged once with its traceback, and reveals nothing of it."""
    web.gateway.error = RuntimeError("secret detail")
    with capture_logs() as logs:
        answer = await web.get(headers={"X-Request-Id": "abc"})
    assert answer.status_code == 500
    assert answer.json()["type"] == "/problems/failed"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    failed = [entry for entry in logs if entry["event"] == "web.failed"]
    assert len(failed) == 1
    assert failed[0]["exc_info"] is web.gateway.error
    assert failed[0]["request_id"] == "abc"
    assert answer.headers["x-request-id"] == "abc"


async def test_an_error_without_a_problem_is_a_fault(web: Web) -> None:
    """An error of ours that is missing from the table is a 500, and logged."""
    web.gateway.error = TaskgateError("secret detail")
    with capture_logs() as logs:
        answer = await web.get()
    assert (answer.status_code, answer.json()["type"]) == (500, "/problems/failed")
    assert "secret" not in answer.text
    assert "web.failed" in {entry["event"] for entry in logs}


@pytest.mark.parametrize(
    ("method", "path", "status", "slug"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/docs/../../etc/passwd", 404, "not-found"),
        ("GET", "/docs/asyncapi-web-component.js", 404, "not-found"),
        ("GET", "/problems/nope", 404, "not-found"),
        ("POST", "/tasks", 405, "method-not-allowed"),
        ("DELETE", "/livez", 405, "method-not-allowed"),
        ("BREW", "/tasks", 405, "method-not-allowed"),
    ],
)
async def test_http_errors_are_problems(web: Web, method: str, path: str, status: int, slug: str) -> None:
    """An unknown route or method gets a problem too, and an id; 405 lists the allowed methods."""
    answer = await web.client.request(method, path)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("slug", PROBLEM_TYPES)
async def test_problems_explain_themselves(web: Web, slug: str) -> None:
    """Each type opens as a page for browsers and as text for others, with what it means and what to do."""
    kind = PROBLEM_TYPES[slug]
    text = await web.client.get(f"/problems/{slug}")
    assert text.headers["content-type"].startswith("text/plain")
    assert kind.meaning in text.text
    assert kind.remedy in text.text
    page = await web.client.get(f"/problems/{slug}", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert kind.title in page.text.replace("&#x27;", "'")
    assert slug in (await web.client.get("/problems")).text


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "text/plain"),
        ("text/html;q=0, */*", "text/plain"),
        ("text/html;q=0.1, text/plain", "text/plain"),
        ("application/json", "text/plain"),
        ("TEXT/HTML", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
    ],
)
async def test_the_form_of_problems_follows_accept(web: Web, accept: str, media_type: str) -> None:
    """`Accept` weights choose HTML or plain text; plain text if the client accepts neither."""
    answer = await web.client.get("/problems", headers={"Accept": accept})
    assert answer.headers["content-type"].partition(";")[0] == media_type


def test_each_refusal_of_a_turn_is_counted_as_refused():
    """`REFUSED` and `DECLINED` hold the problems of `Refused` and its subclasses, and no others."""
    refusals = (Refused, *Refused.__subclasses__())
    assert {slug_of(error) for error in refusals} == REFUSED | (DECLINED - {NOT_WAITED})
