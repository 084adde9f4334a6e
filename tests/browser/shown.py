"""The page at `/` of a fake gateway, in a browser."""

import random
import time
from typing import get_args

from service.model.budgets import (
    AppCondition,
    CallerStanding,
    CallResults,
    Counts,
    RecentCalls,
    ServingState,
    UsageByCaller,
    UsageCounts,
    UsageInPeriod,
    WorstWindows,
)
from tests.browser.chromium import Tab
from tests.http.fake_gateway import NOW_S
from tests.http.site import Web

STATES: dict[ServingState, str] = {
    "serving": "Serving",
    "stale": "Serving stale pages",
    "paused": "Paused",
    "failing": "Upstream failing",
    "stopped": "Calls stopped",
    "redis-away": "Redis away",
}
"""What the page calls each state."""

CARD = "document.querySelector('.app:not(.is-blank)')"


class Shown:
    """A gateway on a socket, and a browser that shows its page."""

    def __init__(self, web: Web, tab: Tab, origin: str) -> None:
        self.web = web
        self.tab = tab
        self.origin = origin

    async def enter(self, key: str) -> None:
        """Enter a key, using only the keyboard."""
        await self.tab.type(key)
        await self.tab.press("Enter")


def busy(web: Web, *, turns: int, waiting: int) -> None:
    """Let the API report an hour of load, the same at every call."""
    chance = random.Random(7)
    own = Counts(
        turns=turns,
        joined=21,
        requests=4321,
        hits=4000,
        stale=3,
        waits=50,
        refusals=2,
        watches=9,
        events=1204,
        resets=2,
    )
    others = UsageCounts(minute=Counts(turns=180), hour=Counts(turns=5000, joined=900))
    web.gateway.view = {
        "free": 1,
        "pause_s": 0.8,
        "pause_reason": "throttled",
        "worst": WorstWindows(minute=3, hour=5),
        "callers": (
            CallerStanding(
                name="single", waiting=waiting, oldest_s=1.25, tally=UsageCounts(minute=Counts(turns=30), hour=own)
            ),
        ),
        "others": CallerStanding(name=None, waiting=2, oldest_s=0.5, tally=others),
    }
    start_s = int(NOW_S) // 60 * 60 - 59 * 60
    web.gateway.usage_view = {
        "callers": (UsageByCaller(name="single", counts=own),),
        "minutes": tuple(
            UsageInPeriod(
                start_s=start_s + 60 * minute,
                counts=Counts(turns=chance.randrange(10, 240), requests=minute + 100, hits=minute + 40, watched_s=425),
            )
            for minute in range(60)
        ),
    }


def tell_state(web: Web, state: ServingState, *, detail: str = "Something is said here.") -> None:
    """Let the API report this state, failed calls, and a success three minutes ago by the browser's clock."""
    assert set(STATES) == set(get_args(ServingState))
    web.gateway.view |= {
        "condition": AppCondition(state=state, detail=detail),
        "recent": RecentCalls(
            minute=CallResults(ok=6, failed={"timeout": 14}),
            hour=CallResults(ok=900, failed={"throttled": 4, "timeout": 33}),
            last_success_ms=int((time.time() - 180) * 1000),
        ),
    }
