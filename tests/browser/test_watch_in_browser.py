"""The program of docs/clients.md that watches by fetch, in a real browser."""

import asyncio
import json

import pytest

from tests.browser.chromium import chromium_tab
from tests.clients.conftest import shown_program
from tests.clients.watched import SAID, watched
from tests.http.site import KEY

pytestmark = pytest.mark.browser


async def test_a_watch_with_fetch_survives_a_lost_connection() -> None:
    """Chromium follows a list across a lost connection, from the last received event, until the watch ends."""
    program = shown_program("Watching: JavaScript", "js")
    start = f"window.said = []; watch(location.origin, {json.dumps(KEY)}, (line) => window.said.push(line)); 0"
    async with asyncio.timeout(60), watched() as site, chromium_tab(f"{site.url}/") as tab:
        await tab.run(f"{program}; window.watch = watch; {start}")
        await tab.until(f"said.at(-1) === {json.dumps(SAID[0])}")
        site.cut_and_change()
        await tab.until(f"said.at(-1) === {json.dumps(SAID[-2])}")
        site.revoke()
        await tab.until(f"said.at(-1) === {json.dumps(SAID[-1])}")
        assert await tab.run("said") == SAID
        first, *others = site.last_event_ids
        assert first == ""
        assert others
        assert all(others)
