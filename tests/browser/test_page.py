"""The page at `/` in a real browser: it shows the API's figures, follows their changes, and hides outdated ones."""

import asyncio
import re
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from service.app import create_app
from service.model.errors import StoreUnavailable
from service.sandbox.serving import sandbox_upstream
from service.sandbox.upstream import SandboxOptions
from service.settings import BudgetSettings, CallerSettings
from tests.browser.chromium import chromium_tab
from tests.browser.shown import CARD, Shown, busy
from tests.http.fake_gateway import NOW_S
from tests.http.site import KEY, Web, key_callers, served
from tests.integration.budget.test_budget_view import WINDOW_S, settings
from tests.servers import Server
from tests.settings import hashed

pytestmark = pytest.mark.browser


async def test_it_shows_the_figures_of_the_api(shown: Shown) -> None:
    """Slots, line, pause, callers and savings are shown as reported, using only the keyboard and without an error."""
    tab = shown.tab
    busy(shown.web, turns=1234, waiting=7)
    assert await tab.run("document.activeElement.id") == "key"
    assert await tab.run("document.querySelector('label[for=key]').textContent") == "API key"
    await shown.enter(KEY)
    await tab.until(CARD)
    seen = await tab.text()
    for text in (
        "shop",
        "of 5 in any second",
        "longest wait 1.3 s",
        "Paused for 0.8 s: throttled",
        "Busiest second, last hour",
        "of 5 calls; 3 in the last minute",
        "6,234",
        "210 in the last minute",
    ):
        assert text in seen, text
    for text in (
        "4,021",
        "4,000 by caching, 21 by joining",
        "1,204 events, 2 resets, last hour",
        "single (you)",
        "all other callers",
        "of 300",
    ):
        assert text in seen, text
    assert await tab.run("document.querySelector('[data-is=free]').textContent") == "1"
    assert await tab.run("document.querySelector('[data-is=waiting]').textContent") == "9"
    assert await tab.run("document.querySelector('[data-is=watchers]').textContent") == "7"
    assert (
        await tab.run("document.querySelectorAll('.pip').length - document.querySelectorAll('.pip.is-free').length")
        == 4
    )
    assert await tab.run("[...document.querySelectorAll('tbody tr')].map(row => row.children[2].innerText.trim())") == [
        "1,234",
        "5,000",
    ]
    heights = await tab.run(
        "[...document.querySelectorAll('.bar:not(.is-track):not(.is-bad)')].slice(0, 60)"
        ".map(bar => +bar.getAttribute('height'))"
    )
    turns = [part.counts.turns for part in shown.web.gateway.usage_view["minutes"]]
    assert heights == pytest.approx([turn / 300 * 120 for turn in turns], abs=0.01)
    scales = await tab.run(
        "[...document.querySelectorAll('.scale')].map(scale => [...scale.children].map(mark => mark.innerText))"
    )
    assert scales == [["300", "150", "0"], ["200", "100", "0"]]
    line = await tab.run(
        "document.querySelector('.all').getAttribute('points').split(' ').map(point => +point.split(',')[1])"
    )
    assert line == pytest.approx([(1 - (minute + 100) / 200) * 120 for minute in range(60)], abs=0.01)
    first = await tab.run(f"new Date({(int(NOW_S) // 60 - 59) * 60_000}).toTimeString().slice(0, 5)")
    assert (
        await tab.run(
            "[...document.querySelectorAll('.axis')].map(axis => [axis.firstChild.innerText, axis.lastChild.innerText])"
        )
        == [[first, "now"]] * 2
    )
    assert tab.errors == []


async def test_figures_follow_the_load(shown: Shown) -> None:
    """Changes appear within a few seconds and without a reload; screen readers do not announce every figure."""
    tab = shown.tab
    await shown.enter(KEY)
    await tab.until("document.querySelector('[data-is=waiting]')?.textContent === '0'")
    assert "no one is waiting" in await tab.text()
    await tab.run(
        "window.sayings = 0;"
        "new MutationObserver(() => sayings++).observe(document.querySelector('#said'), {childList: true}); 1"
    )
    busy(shown.web, turns=99, waiting=40)
    await tab.until("document.querySelector('[data-is=waiting]').textContent === '42'")
    busy(shown.web, turns=99, waiting=0)
    await tab.until("document.querySelector('[data-is=waiting]').textContent === '2'")
    assert await tab.run("sayings") == 0
    assert await tab.run("document.querySelector('#said').textContent") == "Serving"
    assert tab.errors == []


async def test_an_operators_page_shows_waiting_and_paid_calls(own_valkey: Server) -> None:
    """Sixty requests that need a call each are seen to wait, then to have been paid for, by the operator's page."""
    async with AsyncExitStack() as parts:
        sandbox = await parts.enter_async_context(sandbox_upstream(SandboxOptions(window_s=WINDOW_S)))
        rules = BudgetSettings(calls=5, window_s=WINDOW_S, transit_s=0.1)
        service = create_app(settings(sandbox, own_valkey, rules), environ={"SECRET": sandbox.app.key})
        port = await parts.enter_async_context(served(service.asgi))
        tab = await parts.enter_async_context(chromium_tab(f"http://127.0.0.1:{port}/"))
        origin = f"http://127.0.0.1:{port}"
        client = await parts.enter_async_context(httpx.AsyncClient(base_url=origin, timeout=30))
        await tab.type("boss")
        await tab.press("Enter")
        await tab.until("document.querySelector('[data-is=free]')?.textContent === '5'")
        bulk = {"Authorization": "Bearer bulk", "Prefer": "wait=30"}
        asked = [asyncio.create_task(client.get(f"/tasks?since=-P{day}D", headers=bulk)) for day in range(1, 61)]
        await tab.until("+document.querySelector('[data-is=waiting]').textContent > 5")
        assert {(await task).status_code for task in asked} == {200}
        assert (await client.get("/tasks?since=-P1D", headers=bulk)).status_code == 200
        await tab.until("document.querySelector('[data-is=saved]').textContent !== '0'")
        share = (await client.get("/budget?app=shop", headers=bulk)).json()["callers"][0]["last_hour"]
        used = (await client.get("/usage?app=shop", headers=bulk)).json()["total"]
        assert (used["requests"], used["hits"]) == (61, 1)
        assert share["turns"] == used["fetches"] >= 60  # a call that the upstream refuses is retried
        row = "[...document.querySelectorAll('tbody tr')].find(row => row.innerText.startsWith('bulk')).cells"
        row_text = f"bulk 0 {share['turns']} 61 1"
        await tab.until(f"[...{row}].slice(0, 5).map(cell => cell.innerText.trim()).join(' ') === '{row_text}'")
        assert tab.errors == []


async def test_an_error_replaces_outdated_figures(shown: Shown) -> None:
    """If a request fails, no old figure is left anywhere; when one succeeds again, the figures return."""
    tab = shown.tab
    busy(shown.web, turns=7777, waiting=7)
    await shown.enter(KEY)
    await tab.until(CARD)
    shown.web.gateway.error = StoreUnavailable("unreachable")
    await tab.until("document.querySelector('[data-is=trouble]').innerText.includes('No figures since')")
    assert "7,777" not in await tab.run("document.body.textContent")
    assert "No figures for 1 of 1 apps" in await tab.text()
    shown.web.gateway.error = None
    await tab.until("document.body.innerText.includes('7,777')")
    await tab.call(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    await tab.until("!document.querySelector('#trouble').hidden")
    seen = await tab.run("document.body.textContent")
    assert "can't be reached" in seen
    assert "No figures since" in seen
    assert "7,777" not in seen
    assert not await tab.run(CARD)
    await tab.call(
        "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    await tab.until("document.body.innerText.includes('7,777')")


async def test_a_wrong_key_is_requested_again(shown: Shown) -> None:
    """A wrong key is not stored; a valid one is stored in this tab only, until the user removes it."""
    tab = shown.tab
    await shown.enter("wrong")
    await tab.until("document.querySelector('#trouble').innerText.includes('Unknown key')")
    assert await tab.run("sessionStorage.length") == 0
    await shown.enter(KEY)
    await tab.until(CARD)
    assert await tab.run("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    assert await tab.run("document.querySelector('#key').value") == ""
    await tab.run("document.querySelector('#forget').focus()")
    await tab.press("Enter")
    await tab.until("!document.querySelector('#enter').hidden")
    assert await tab.run("sessionStorage.length") == 0
    assert not await tab.run(CARD)


async def test_requests_stay_local_and_names_are_text() -> None:
    """All requests go to the gateway; markup in a name is shown as text."""
    name = "<img src=x onerror=alert(1)>"
    web = Web(callers=key_callers({name: CallerSettings(keys=(hashed(KEY),), apps=("shop",))}))
    async with web.on_a_socket() as port, chromium_tab(f"http://127.0.0.1:{port}/") as tab:
        await tab.type(KEY)
        await tab.press("Enter")
        await tab.until(CARD)
        assert f"{name} (you)" in await tab.text()
        assert {urlsplit(url).netloc for url in tab.requests} == {f"127.0.0.1:{port}"}
        paths = {re.sub(r"\.[0-9a-f]{12}\.", ".", urlsplit(url).path) for url in tab.requests}
        assert paths >= {"/", "/page/page.css", "/page/page.js", "/page/card.js", "/apps", "/usage"}
        assert not any(KEY in url for url in tab.requests)
        assert tab.errors == []
    await web.client.aclose()


@pytest.mark.parametrize("width", [320, 360, 700, 1200])
async def test_nothing_is_wider_than_the_screen(shown: Shown, width: int) -> None:
    """On a phone too, where the table of callers is read without scrolling sideways, each figure with its label."""
    busy(shown.web, turns=123_456, waiting=70)
    await shown.tab.look(width=width)
    await shown.enter(KEY)
    await shown.tab.until(f"{CARD}?.innerText.includes('123,456')")
    assert await shown.tab.run("document.documentElement.scrollWidth") <= width
    tops = await shown.tab.run("[...document.querySelectorAll('.pip')].map(pip => pip.getBoundingClientRect().top)")
    assert len(tops) == 5
    assert len(set(tops)) == 1  # the slots are one row
    inside = (
        "[...document.querySelectorAll('.plot')].every(plot => [...plot.querySelectorAll('span')].every(each => "
        "each.getBoundingClientRect().right <= plot.getBoundingClientRect().right + 0.5))"
    )
    assert await shown.tab.run(inside)
    if width > 640:
        return
    assert await shown.tab.run(
        "[...document.querySelectorAll('.scroll, td')].every(box => box.scrollWidth <= box.clientWidth)"
    )
    labels = await shown.tab.run(
        "[...document.querySelector('tbody tr').cells].slice(1).map(cell => getComputedStyle(cell, '::before').content)"
    )
    assert labels == [
        f'"{name}"' for name in ("In line", "Calls", "Requests", "Hits", "Joins", "Stale", "Waits", "Refused")
    ]
