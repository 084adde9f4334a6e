"""The page that each test starts from."""

from collections.abc import AsyncIterator

import pytest

from tests.browser.chromium import chromium_tab
from tests.browser.shown import Shown
from tests.http.site import Web


@pytest.fixture
async def shown() -> AsyncIterator[Shown]:
    web = Web()
    async with web.on_a_socket() as port, chromium_tab(f"http://127.0.0.1:{port}/") as tab:
        yield Shown(web, tab, f"http://127.0.0.1:{port}")
    await web.client.aclose()
