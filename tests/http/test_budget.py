"""`GET /budget` over HTTP: its parameter, its members, and who may read it."""

import pytest

from service.model.budgets import (
    AppCondition,
    CallerStanding,
    CallResults,
    Counts,
    RecentCalls,
    UsageCounts,
    WorstWindows,
)
from tests.http.site import MANY_AUTH, Web


async def test_the_body_has_the_documented_members(web: Web) -> None:
    """The whole view is reported, in seconds and counts; without a pause there is no reason."""
    tally = UsageCounts(minute=Counts(turns=3, joined=1), hour=Counts(turns=30, joined=10))
    web.gateway.view = {
        "condition": AppCondition(state="failing", detail="14 of 20 upstream calls failed in the last minute."),
        "recent": RecentCalls(
            minute=CallResults(ok=6, failed={"timeout": 14}),
            hour=CallResults(ok=60, failed={"broken": 1, "timeout": 14}),
            last_success_ms=1_748_736_000_900,
        ),
        "free": 2,
        "pause_s": 0.75,
        "pause_reason": "throttled",
        "worst": WorstWindows(minute=4, hour=5),
        "callers": (CallerStanding(name="single", waiting=4, oldest_s=1.25, tally=tally),),
        "others": CallerStanding(name=None, waiting=1, oldest_s=0.5),
    }
    answer = await web.get("/budget")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    nothing = {"turns": 0, "joined": 0}
    assert answer.json() == {
        "app": "shop",
        "call": "list",
        "state": "failing",
        "state_detail": "14 of 20 upstream calls failed in the last minute.",
        "last_success_at": "2025-06-01T00:00:00Z",
        "calls": {
            "last_minute": {"ok": 6, "failed": {"timeout": 14}},
            "last_hour": {"ok": 60, "failed": {"broken": 1, "timeout": 14}},
        },
        "redis": "ok",
        "slots": {"total": 5, "free": 2, "window_seconds": 1.0},
        "worst_window": {"last_minute": 4, "last_hour": 5},
        "pause": {"seconds": 0.75, "reason": "throttled"},
        "callers": [
            {
                "caller": "single",
                "waiting": {"count": 4, "oldest_seconds": 1.25},
                "last_minute": {"turns": 3, "joined": 1},
                "last_hour": {"turns": 30, "joined": 10},
            }
        ],
        "others": {
            "caller": None,
            "waiting": {"count": 1, "oldest_seconds": 0.5},
            "last_minute": nothing,
            "last_hour": nothing,
        },
    }
    web.gateway.view = {}
    body = (await web.get("/budget?app=shop")).json()
    assert body["pause"] == {"seconds": 0.0, "reason": None}
    assert body["last_success_at"] is None


async def test_unknown_figures_are_null(web: Web) -> None:
    """With Redis unavailable the answer says so, and is not an error."""
    web.gateway.view = {"redis_away": True, "free": None, "pause_s": None}
    answer = await web.get("/budget")
    assert answer.status_code == 200
    body = answer.json()
    assert (body["redis"], body["slots"]["free"], body["pause"]) == ("away", None, None)


@pytest.mark.parametrize(
    ("query", "status", "parameter"),
    [
        ("", 400, "app"),
        ("?app=", 400, "app"),
        ("?app=shop&app=news", 400, "app"),
        ("?app=shop&caller=x", 400, "caller"),
        ("?app=other", 404, None),
        ("?app=news", 200, None),
    ],
)
async def test_the_app_is_read_strictly(web: Web, query: str, status: int, parameter: str | None) -> None:
    """A caller of several apps must name one of its own, and no other parameter."""
    answer = await web.get(f"/budget{query}", headers=MANY_AUTH)
    assert answer.status_code == status
    if parameter is not None:
        assert answer.json()["errors"][0]["parameter"] == parameter


async def test_a_key_is_required(web: Web) -> None:
    """A request without a key gets 401, as everywhere."""
    assert (await web.client.get("/budget?app=shop")).status_code == 401


async def test_the_record_of_a_request_names_the_app(web: Web) -> None:
    """The request's record names the app, for logs and metrics."""
    await web.get("/budget")
    assert (web.observed[-1].labels.app, web.observed[-1].labels.route) == ("shop", "/budget")
