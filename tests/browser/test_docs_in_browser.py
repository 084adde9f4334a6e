"""`/docs` in a real browser: someone with a key pastes it, sends a request, and reads its answer and its samples."""

import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import Tab, chromium_tab
from tests.scenes.fleet import fleet, key_of
from tests.servers import Server

pytestmark = pytest.mark.browser

OPERATION = "#tag/tasks/GET/tasks"
TEST_REQUEST = 'section[id$="tag/tasks/GET/tasks"] .show-api-client-button'
LOADED_S = 60.0
SAMPLES = {
    "shell/curl": "curl 'ORIGIN/tasks?app=shop'",
    "python/requests": "requests.get(",
    "python/httpx_sync": "httpx.get(",
    "js/fetch": "fetch('ORIGIN/tasks?app=shop'",
    "go/native": "http.NewRequest",
    "java/nethttp": "HttpRequest.newBuilder()",
}
DIALOG = "document.querySelector('[role=dialog]')"


@pytest.fixture
async def origin(own_valkey: Server) -> AsyncIterator[str]:
    """A whole gateway that lets `c0` read the app `shop`."""
    async with fleet(own_valkey, replicas=1) as gateways:
        yield f"http://127.0.0.1:{gateways.replicas[0].port}"


async def press(tab: Tab, label: str, *, within: str = "document") -> None:
    """Click the button whose text begins with this, once it is there."""
    button = f"[...{within}.querySelectorAll('button')].find(each => each.innerText.trim().startsWith({label!r}))"
    await tab.until(button)
    await tab.run(f"{button}.click()")


async def test_a_request_with_a_pasted_key_is_sent_to_the_gateway_only(origin: str) -> None:
    """GET /tasks, sent with a pasted key, shows its answer; no request leaves the gateway, and no key is stored."""
    async with chromium_tab(f"{origin}/docs{OPERATION}") as tab:
        await tab.until(f"document.querySelector('{TEST_REQUEST}')", within_s=LOADED_S)
        await tab.until("document.querySelector('input[placeholder=Token]')")
        await tab.run("document.querySelector('input[placeholder=Token]').focus()")
        await tab.type(key_of("c0"))
        await tab.run(f"document.querySelector('{TEST_REQUEST}').click()")
        await tab.until(DIALOG)
        await press(tab, "Send", within=DIALOG)
        await tab.until(f"{DIALOG}.innerText.includes('200 OK')")
        await tab.until(f"{DIALOG}.innerText.includes('scheduled_at')")
        requests = [url for url in tab.requests if not url.startswith("data:")]
        assert [url for url in requests if urlsplit(url).path == "/tasks"] == [f"{origin}/tasks?app=shop"]
        assert {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in requests} == {origin}
        stored = await tab.run(
            "(async () => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, "
            "await indexedDB.databases()]))()"
        )
        assert key_of("c0") not in stored
        assert json.loads(stored)[-1] == []
        assert tab.errors == []


async def test_there_is_a_sample_for_each_promised_client(origin: str) -> None:
    """There is a sample for exactly the promised clients, and it requests only what is needed from this gateway."""
    async with chromium_tab(f"{origin}/docs{OPERATION}") as tab:
        card = f"document.querySelector('{TEST_REQUEST}').closest('.scalar-card')"
        await tab.until(f"document.querySelector('{TEST_REQUEST}')", within_s=LOADED_S)
        for client, sample in SAMPLES.items():
            await tab.run(f"{card}.querySelector('[data-testid=client-picker]').click()")
            await tab.until("document.querySelector('[role=option]')")
            ids = await tab.run("[...document.querySelectorAll('[role=option]')].map(each => each.id)")
            assert len(ids) == len(SAMPLES)
            (chosen,) = (each for each in ids if each.endswith(f"-{client}"))
            await tab.run(f"document.getElementById({chosen!r}).click()")
            await tab.until(f"{card}.innerText.includes({sample.replace('ORIGIN', origin)!r})")
            await tab.until("!document.querySelector('[role=option]')")
        assert tab.errors == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (320, False)])
async def test_docs_fit_the_window_in_both_color_schemes(origin: str, width: int, dark: bool) -> None:
    """The page fits the window, wide and narrow; in the dark scheme its background is dark and its texts are light."""
    async with chromium_tab("about:blank") as tab:
        await tab.look(width=width, dark=dark)
        await tab.call("Page.navigate", url=f"{origin}/docs")
        await tab.until("document.querySelector('h1')?.innerText === 'Taskgate'", within_s=LOADED_S)
        assert await tab.run("document.documentElement.scrollWidth") <= width
        colour, ground = await tab.run(
            "[getComputedStyle(document.querySelector('h1')).color, getComputedStyle(document.body).backgroundColor]"
            ".map(each => Number(each.match(/\\d+/)[0]))"
        )
        assert (colour > ground) == dark
        assert tab.errors == []
