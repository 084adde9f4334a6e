"""The page's colours as Chromium computes them, in both schemes: all text contrasts with its background."""

import pytest

from service.model.errors import StoreUnavailable
from tests.browser.shown import CARD, STATES, Shown, busy, tell_state
from tests.http.site import KEY

pytestmark = pytest.mark.browser

# Contrast as WCAG 2.2 defines it (1.4.3 for texts, 1.4.11 for what is drawn), of every colour in sight.
MEASURE = r"""
(() => {
  const parse = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = (node) => {
    if (node === null) return [255, 255, 255, 1];
    return over(parse(getComputedStyle(node).backgroundColor), ground(node.parentElement));
  };
  const light = (colour) => {
    const parts = colour.slice(0, 3).map((part) => part / 255);
    const [red, green, blue] = parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const measured = [];
  const tell = (kind, node, colour, below) => {
    const [high, low] = [light(over(parse(colour), below)), light(below)].sort((one, other) => other - one);
    const what = node.textContent.trim().slice(0, 30) || node.getAttribute("class");
    measured.push([kind, what, (high + 0.05) / (low + 0.05)]);
  };
  const own = (node) => [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim());
  for (const node of document.body.querySelectorAll("*")) {
    if (!node.checkVisibility({ visibilityProperty: true }) || node.closest(".unseen")) continue;
    const style = getComputedStyle(node);
    const label = getComputedStyle(node, "::before");
    if (own(node)) tell("text", node, style.color, ground(node));
    if (label.content !== "none") tell("text", node, label.color, ground(node));
    if (node.matches(".mark")) tell("drawn", node, style.backgroundColor, ground(node.parentElement));
    if (node.matches(".bar:not(.is-track)")) tell("drawn", node, style.fill, ground(node));
    if (node.matches(".all, .spared, .refused")) tell("drawn", node, style.stroke, ground(node));
    const isFilled = node.matches(".dot, .pip:not(.is-free), .key:not(.free)");
    if (isFilled) tell("drawn", node, style.backgroundColor, ground(node.parentElement));
    if (node.matches("#key")) tell("drawn", node, style.borderTopColor, ground(node.parentElement));
  }
  return measured;
})()
"""


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("dark", [False, True])
async def test_texts_and_graphics_have_enough_contrast(shown: Shown, width: int, *, dark: bool) -> None:
    """Text has a contrast of 4.5 to 1, graphics of 3 to 1: at the key prompt, under load, and with an error."""
    await shown.tab.look(width=width, dark=dark)
    await stands_out(shown, "See how your apps are doing")
    busy(shown.web, turns=1234, waiting=7)
    await shown.enter(KEY)
    await shown.tab.until(f"{CARD}?.innerText.includes('1,234')")
    await stands_out(shown, "shop")
    for state, name in STATES.items():
        tell_state(shown.web, state)
        await shown.tab.until(f"document.querySelector('[data-is=state]').textContent === '{name}.'")
        await stands_out(shown, f"{name}.")
    shown.web.gateway.error = StoreUnavailable("unreachable")
    await shown.tab.until("document.querySelector('[data-is=trouble]').innerText.includes('No figures since')")
    await stands_out(shown, "No figures for 1 of 1 apps")


async def stands_out(shown: Shown, seen: str) -> None:
    """No visible element has too little contrast, and this text is among the measured ones."""
    measured = await shown.tab.run(MEASURE)
    assert seen in [what for _, what, _ in measured]
    assert [each for each in measured if each[2] < (4.5 if each[0] == "text" else 3)] == []
