"""`/docs` in a real browser: someone with a key authorizes, tries a request, and reads its answer."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.chromium import Tab, chromium_tab
from tests.scenes.fleet import fleet, key_of
from tests.servers import Server

pytestmark = pytest.mark.browser

CONTRACT = Path(__file__).parents[2] / "openapi" / "openapi.json"
OPERATION = "#operations-Tasks-listTasks"
LIVE = f"{OPERATION} .live-responses-table .response"


@pytest.fixture
async def origin(own_valkey: Server) -> AsyncIterator[str]:
    """A whole gateway that lets `c0` read the app `shop`."""
    async with fleet(own_valkey, replicas=1) as gateways:
        yield f"http://127.0.0.1:{gateways.replicas[0].port}"


async def click(tab: Tab, selector: str) -> None:
    """Click on what comes first, once it is there."""
    await tab.until(f"document.querySelector({selector!r})")
    await tab.run(f"document.querySelector({selector!r}).click()")


async def fill(tab: Tab, selector: str, text: str) -> None:
    """Type into a field in place of what stands there."""
    await tab.until(f"document.querySelector({selector!r})")
    await tab.run(f"(field => {{ field.focus(); field.select() }})(document.querySelector({selector!r}))")
    await tab.type(text)
    await tab.press("Tab")  # leaving a field tells Swagger UI at once, typing only after a while


async def test_authorize_and_try(origin: str) -> None:
    """GET /tasks, tried with a key, shows its answer; no request goes elsewhere, and the browser complains of none."""
    async with chromium_tab(f"{origin}/docs") as tab:
        await click(tab, ".btn.authorize")
        await fill(tab, ".dialog-ux input", key_of("c0"))
        await click(tab, ".dialog-ux button.authorize")
        await click(tab, ".dialog-ux button.btn-done")
        await click(tab, f"{OPERATION} .opblock-summary-control")
        await fill(tab, f"{OPERATION} tr[data-param-name=app] input", "shop")
        await fill(tab, f"{OPERATION} tr[data-param-name=limit] input", "2")
        await click(tab, f"{OPERATION} button.execute")
        await tab.until(f"document.querySelector('{LIVE} pre')")
        assert (await tab.run(f"document.querySelector('{LIVE} .response-col_status').innerText")).split() == ["200"]
        page = json.loads(await tab.run(f"document.querySelector('{LIVE} pre').innerText"))
        assert (page["app"], len(page["tasks"])) == ("shop", 2)
        paths = json.loads(CONTRACT.read_bytes())["paths"]
        operations = sum(len(item) for item in paths.values())
        assert await tab.run("document.querySelectorAll('.opblock').length") == operations
        requests = [url for url in tab.requests if not url.startswith("data:")]
        assert any(urlsplit(url).path == "/tasks" and "limit=2" in url for url in requests)
        assert {f"{urlsplit(url).scheme}://{urlsplit(url).netloc}" for url in requests} == {origin}
        assert tab.errors == []
