"""The page's requests: the chosen period, and a bounded number of apps per round."""

from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest

from service.model.budgets import Counts, UsageByCaller, UsageInPeriod
from service.settings import CallerSettings
from tests.browser.chromium import Tab, chromium_tab
from tests.browser.shown import CARD, Shown, busy
from tests.http.fake_gateway import NOW_S
from tests.http.site import KEY, Web, key_callers
from tests.settings import hashed

pytestmark = pytest.mark.browser

APPS = tuple(f"app-{number:02}" for number in range(20))
DAY_S = 86_400
COUNT_FETCHES = """
window.most = {}; window.under = {}; window.real = window.fetch;
window.fetch = (path, how) => {
  const kind = path.split("?")[0];
  let over = false;
  const end = () => { if (!over) under[kind] -= 1; over = true; };
  under[kind] = (under[kind] || 0) + 1;
  most[kind] = Math.max(most[kind] || 0, under[kind]);
  how.signal.addEventListener("abort", end);
  return real(path, how).finally(end);
}; 1
"""


async def test_the_period_can_be_chosen(shown: Shown) -> None:
    """Arrow keys choose the period of figures, bars and callers; the choice is not stored."""
    tab, gateway = shown.tab, shown.web.gateway
    busy(shown.web, turns=99, waiting=0)
    await shown.enter(KEY)
    await tab.until(f"{CARD}?.innerText.includes('Calls, last hour')")
    hours = tuple(
        UsageInPeriod(start_s=int(NOW_S) // 3600 * 3600 - 3600 * ago, counts=Counts(turns=9000 - ago, requests=30_000))
        for ago in range(24, -1, -1)
    )
    gateway.usage_view |= {
        "hours": hours,
        "callers": (UsageByCaller(name="single", counts=Counts(turns=54_321, joined=77)),),
    }
    await tab.run("document.querySelector('#period :checked').focus()")
    await tab.press("ArrowRight")
    await tab.until(f"{CARD}.innerText.includes('54,321')")
    assert gateway.usage_requests[-1] == ("shop", "single", int(NOW_S) - DAY_S)
    seen = await tab.text()
    for text in (
        "Calls by single, last day",
        "Calls an hour",
        "busiest hour 9,000 of 18,000",
        "Waiting callers, and usage in the last day",
        "40K",
    ):
        assert text in seen, text
    assert await tab.run("document.querySelectorAll('.bar.is-track').length") == 25
    cells = "[0, 2, 5].map(column => row.cells[column].innerText.trim())"
    rows = await tab.run(f"[...document.querySelectorAll('tbody tr')].map(row => {cells})")
    assert rows == [["single (you)", "54,321", "77"], ["all other callers", "\N{EN DASH}", "\N{EN DASH}"]]
    await tab.press("ArrowRight")
    await tab.until(f"{CARD}.innerText.includes('last week')")
    assert gateway.usage_requests[-1] == ("shop", "single", int(NOW_S) - 7 * DAY_S)
    assert await tab.run("[sessionStorage.length, localStorage.length, document.cookie, location.search]") == [
        1,
        0,
        "",
        "",
    ]
    assert tab.errors == []
    await tab.call("Page.reload")
    await tab.until(f"{CARD}?.innerText.includes('last hour')")
    assert await tab.run("document.querySelector('#period :checked').value") == "hour"


async def test_single_tasks_have_separate_figures(shown: Shown) -> None:
    """Arrow keys choose the kind of call, for budget and usage; the previous figures are removed."""
    tab, gateway = shown.tab, shown.web.gateway
    busy(shown.web, turns=99, waiting=0)
    await shown.enter(KEY)
    await tab.until(f"{CARD}?.innerText.includes('of 5 in any second')")
    assert kinds(tab) == {"list"}
    gateway.view |= {"calls": 7}
    before = len(tab.requests)
    await tab.run("document.querySelector('#call :checked').focus()")
    await tab.press("ArrowRight")
    await tab.until(f"{CARD}?.innerText.includes('of 7 in any second')")
    assert await tab.run("document.querySelector('#call :checked').parentNode.innerText") == "Single tasks"
    assert kinds(tab, since=before) == {"get"}
    assert tab.errors == []


async def test_twenty_apps_are_refreshed_in_turn() -> None:
    """A round has at most 13 requests, visible apps first, and ends before the next; all apps are refreshed in turn."""
    web = Web(callers=key_callers({"many": CallerSettings(keys=(hashed(KEY),), apps=APPS)}))
    web.gateway.app_names = APPS
    async with web.on_a_socket() as port, chromium_tab(f"http://127.0.0.1:{port}/") as tab:
        await tab.run(COUNT_FETCHES)
        await tab.type(KEY)
        await tab.press("Enter")
        await tab.until("document.querySelectorAll('.app').length === 20")
        await tab.until("document.querySelectorAll('.app.is-blank').length < 20")
        for choice in ("day", "week", "hour"):
            await tab.run(f"document.querySelector('#period [value={choice}]').click()")
        await tab.run("document.querySelector('.app:last-child').scrollIntoView()")
        await tab.until("!document.querySelector('.app:last-child').classList.contains('is-blank')")
        before = len(rounds(tab))
        while {app for asked in rounds(tab) for app in asked} != set(APPS) or len(rounds(tab)) < before + 2:
            count = len(rounds(tab))
            await tab.until("under.apps === 0 && under.usage === 0")
            await tab.until(
                f"performance.getEntriesByType('resource').filter(each => each.name.endsWith('/apps')).length > {count}"
            )
        ended = rounds(tab)[:-1]
        assert max(len(asked) for asked in ended) == 6
        assert all(APPS[-1] in asked for asked in ended[before:])
        assert await tab.run("most") == {"apps": 1, "budget": 6, "usage": 6}
        assert tab.errors == []
    await web.client.aclose()


def kinds(tab: Tab, *, since: int = 0) -> set[str]:
    """Return the kinds of calls whose budget and usage were requested."""
    addresses = [urlsplit(url) for url in tab.requests[since:]]
    return {parse_qs(each.query)["call"][0] for each in addresses if each.path in ("/budget", "/usage")}


def rounds(tab: Tab) -> list[list[str]]:
    """Return the apps whose usage was requested, by round; each round begins with a request for the list."""
    addresses = [urlsplit(url) for url in tab.requests]
    begins = [index for index, address in enumerate(addresses) if address.path == "/apps"]
    return [
        [parse_qs(address.query)["app"][0] for address in addresses[begin:end] if address.path == "/usage"]
        for begin, end in pairwise([*begins, len(addresses)])
    ]
