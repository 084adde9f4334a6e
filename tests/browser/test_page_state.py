"""The state of each app at the top of the page, in words and colour, with its last error."""

import pytest
from msgspec.structs import replace

from service.model.budgets import ServingState
from tests.browser.shown import CARD, STATES, Shown, busy, tell_state
from tests.http.site import KEY

pytestmark = pytest.mark.browser

LEVELS: dict[ServingState, str] = {"serving": "is-live", "stale": "is-warned", "paused": "is-warned"}


@pytest.mark.parametrize("state", list(STATES))
async def test_each_state_is_shown_with_its_reason(shown: Shown, state: ServingState) -> None:
    """The state is at the top of its app and of the page, with the reason, the last success and the failed calls."""
    tab = shown.tab
    busy(shown.web, turns=99, waiting=0)
    tell_state(shown.web, state, detail="14 of 20 upstream calls failed in the last minute.")
    await shown.enter(KEY)
    await tab.until(CARD)
    seen = await tab.run("document.querySelector('.condition').innerText")
    assert seen.startswith(f"{STATES[state]}. 14 of 20 upstream calls failed in the last minute.")
    assert "Last successful call 3 min ago." in seen
    assert "Failed calls, last hour: 33 timeout, 4 throttled." in seen
    first, second = await tab.run(
        "[...document.querySelector('.app').children].slice(0, 2).map(each => each.className)"
    )
    assert (first, second.split()[0]) == ("head", "condition")
    assert await tab.run("document.body.className") == LEVELS.get(state, "is-broken")
    summary = "Serving" if state == "serving" else f"shop: {STATES[state].lower()}"
    assert await tab.run("document.querySelector('#state').textContent") == summary
    assert await tab.run("document.querySelector('#said').textContent") == summary
    assert tab.errors == []


async def test_the_focus_moves_to_the_heading(shown: Shown) -> None:
    """When the form is removed, the focus moves from it to the new heading, and is not moved again."""
    tab = shown.tab
    await shown.enter(KEY)
    await tab.until(CARD)
    assert await tab.run("document.activeElement === document.querySelector('h1')")
    await tab.press("Tab")
    focused = await tab.run("document.activeElement.textContent")
    rounds = sum(url.endswith("/apps") for url in tab.requests)
    await tab.until(f"performance.getEntriesByType('resource').filter(e => e.name.endsWith('/apps')).length > {rounds}")
    assert await tab.run("document.activeElement.textContent") == focused


async def test_failed_calls_and_refused_requests_are_drawn(shown: Shown) -> None:
    """Each minute's failed calls are the red part of its bar; refused requests are a separate line."""
    tab, gateway = shown.tab, shown.web.gateway
    busy(shown.web, turns=99, waiting=0)
    minutes = gateway.usage_view["minutes"]
    gateway.usage_view["minutes"] = tuple(
        replace(part, counts=replace(part.counts, failed=3 * (index > 56), refusals=index))
        for index, part in enumerate(minutes)
    )
    await shown.enter(KEY)
    await tab.until(CARD)
    heights = "[...document.querySelectorAll('.charts .bar.is-bad')].map(bar => +bar.getAttribute('height'))"
    assert await tab.run(heights) == pytest.approx([2.0] * 3, abs=0.01)  # three calls of 300, no less than two units
    points = await tab.run(
        "document.querySelector('.refused').getAttribute('points').split(' ').map(point => +point.split(',')[1])"
    )
    assert points == pytest.approx([(1 - index / 200) * 120 for index in range(60)], abs=0.01)
    label = await tab.run("document.querySelector('[data-is=bars]').getAttribute('aria-label')")
    assert "9 failed in all" in label
    colours = await tab.run(
        "[...document.querySelectorAll('.bar.is-bad, .refused, .is-refused')].map(each => "
        "getComputedStyle(each)[each.matches('.bar') ? 'fill' : each.matches('.refused') ? 'stroke' : 'color'])"
    )
    assert len(colours) == 5
    assert set(colours) == {"rgb(179, 38, 30)"}


async def test_the_columns_are_explained(shown: Shown) -> None:
    """A question mark opens a line about each column, by keyboard too."""
    tab = shown.tab
    await shown.enter(KEY)
    await tab.until(CARD)
    await tab.run("document.querySelector('summary').focus()")
    await tab.press("Enter")
    await tab.until("document.querySelector('details').open")
    explained = await tab.run("[...document.querySelectorAll('details dt')].map(each => each.innerText)")
    columns = await tab.run("[...document.querySelectorAll('thead th')].slice(1).map(each => each.innerText)")
    assert explained == columns
    assert (await tab.text()).count("What the columns mean") == 1


async def test_forced_colours_keep_the_marks(shown: Shown) -> None:
    """With forced colours, every meaningful mark has another colour than its background."""
    tab = shown.tab
    busy(shown.web, turns=99, waiting=0)
    tell_state(shown.web, "failing")
    await shown.enter(KEY)
    await tab.until(CARD)
    await tab.call("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])
    await tab.until("matchMedia('(forced-colors: active)').matches")
    ground = await tab.run("getComputedStyle(document.body).backgroundColor")
    marks = await tab.run(
        "[...document.querySelectorAll("
        "'.dot, .mark, .pip:not(.is-free), .key.bars, .key.area, .bar:not(.is-track), .all')]"
        ".map(each => [each.getAttribute('class'), getComputedStyle(each)[each.matches('.bar') ? 'fill' : "
        "each.matches('.all') ? 'stroke' : 'backgroundColor']])"
    )
    assert {name.split()[0] for name, _ in marks} == {"dot", "mark", "pip", "key", "bar", "all"}
    assert [name for name, colour in marks if colour == ground] == []
