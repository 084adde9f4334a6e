"""The text of a refused wait, in virtual time: its figures are consistent, and a caller that retries as advised
gets a turn."""

import asyncio
import re

import pytest

from service.model.errors import WaitTooLong
from tests.simulation.small_world import SmallWorld, play

PACE_S = 1.1 / 5
"""Between two turns under a backlog: a window and the time to the upstream and back, for five calls."""


async def refused(world: SmallWorld, keyword: str, *, patience_s: float) -> WaitTooLong:
    """Return why a page cannot be had in this time."""
    with pytest.raises(WaitTooLong) as caught:
        await world.page(keyword, patience_s=patience_s, waiting_max=200)
    return caught.value


@pytest.mark.parametrize(("backlog", "patience_s"), [(15, 1.0), (40, 2.0), (40, 6.0), (100, 5.0), (100, 15.0)])
def test_a_retry_after_the_advised_time_gets_a_turn(backlog: int, patience_s: float) -> None:
    """A retry after `Retry-After` with the same patience gets a turn, if nothing else has changed; the advice is
    not much longer than needed."""

    async def scene(world: SmallWorld) -> None:
        ahead = [
            asyncio.create_task(world.page(f"q{number}", patience_s=60, waiting_max=200)) for number in range(backlog)
        ]
        await asyncio.sleep(0.2)
        began_s = world.loop.time()
        error = await refused(world, "late", patience_s=patience_s)
        assert world.loop.time() - began_s < 0.1
        assert error.budget is not None
        assert (error.budget.calls, error.budget.window_s) == (5, 1.0)
        await asyncio.sleep(error.retry_after_s)
        await world.page("late", patience_s=patience_s, waiting_max=200)
        assert error.retry_after_s < backlog * PACE_S * 1.3 + 1
        await asyncio.gather(*ahead)

    play(scene)


def test_a_refused_wait_has_consistent_figures() -> None:
    """A pause begins while a request waits: the numbers of its refusal fit together."""

    async def scene(world: SmallWorld) -> None:
        ahead = [asyncio.create_task(world.page(f"q{number}", patience_s=60)) for number in range(9)]
        await asyncio.sleep(0.1)
        late = asyncio.create_task(refused(world, "late", patience_s=3.0))
        await asyncio.sleep(0.8)
        await world.pause(10_000)
        error = await late
        text = str(error)
        waited_s, expected_s, lacking_s, patience_s = map(float, re.findall(r"\d+(?:\.\d+)?(?= s)", text))
        assert text.startswith("no turn has come in ")
        assert patience_s == 3.0
        assert 0.8 <= waited_s <= 1.5
        assert 8 < expected_s < 13
        assert lacking_s == pytest.approx(waited_s + expected_s - patience_s, abs=0.11)
        await asyncio.gather(*ahead)

    play(scene)


def test_a_wait_to_the_end_of_the_patience_lacks_time() -> None:
    """Never "expected in 0.1 s" with time to spare: the lacking time is given, and is above zero."""
    error = WaitTooLong(place=1, estimate_s=0.0, patience_s=6.0, waited_s=6.1)
    assert str(error) == (
        "no turn has come in 6.1 s; at place 1 in line one is expected in 0.1 s, "
        "0.2 s later than the patience of 6 s allows"
    )
    assert error.retry_after_s == 1.0
