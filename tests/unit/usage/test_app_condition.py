"""The state of an app, as one word."""

from typing import Any

import pytest

from service.model.budgets import CallResults, RecentCalls
from service.model.errors import CallsStopped
from service.usage.app_condition import app_condition

QUIET = RecentCalls()
GOOD = RecentCalls(minute=CallResults(ok=20))
HALF = RecentCalls(minute=CallResults(ok=6, failed={"timeout": 4, "broken": 2}))
SOME = RecentCalls(minute=CallResults(ok=7, failed={"timeout": 6}))
NONE_OK = RecentCalls(minute=CallResults(failed={"timeout": 3}))
STOPPED = CallsStopped(app="shop", code=70003, text="sig", advice="The key is wrong.", stopped_for_s=60)


@pytest.mark.parametrize(
    ("recent", "facts", "state", "detail"),
    [
        (QUIET, {}, "serving", "No call failed in the last minute."),
        (GOOD, {"stale_last_minute": 9}, "serving", "Calls succeed."),
        (SOME, {}, "serving", "Calls succeed."),
        (HALF, {}, "failing", "6 of 12 upstream calls failed in the last minute."),
        (NONE_OK, {}, "failing", "3 of 3 upstream calls failed in the last minute."),
        (NONE_OK, {"pause_s": 1.0}, "failing", "3 of 3 upstream calls failed in the last minute."),
        (
            NONE_OK,
            {"stale_last_minute": 1},
            "stale",
            "Stale pages are served; 3 of 3 upstream calls failed in the last minute.",
        ),
        (GOOD, {"pause_s": 0.5, "pause_reason": "throttled"}, "paused", "Calls are paused for 0.5 s (throttled)."),
        (NONE_OK, {"stopped": STOPPED}, "stopped", "Calls are stopped: The key is wrong."),
        (GOOD, {"stopped": STOPPED, "redis_away": True}, "stopped", "Calls are stopped: The key is wrong."),
        (NONE_OK, {"redis_away": True}, "redis-away", "Redis can't be reached, so no calls are made."),
        (
            GOOD,
            {"redis_away": True, "makes_calls": True},
            "serving",
            "Redis can't be reached; each replica makes its share of the calls.",
        ),
    ],
)
def test_the_most_serious_state_is_reported(
    recent: RecentCalls, facts: dict[str, Any], state: str, detail: str
) -> None:
    """Stopped before Redis, Redis before failing calls, failing calls before a pause."""
    usual: dict[str, Any] = {
        "stopped": None,
        "redis_away": False,
        "makes_calls": False,
        "pause_s": 0.0,
        "pause_reason": "",
        "stale_last_minute": 0,
    }
    condition = app_condition(recent, **(usual | facts))
    assert (condition.state, condition.detail) == (state, detail)
