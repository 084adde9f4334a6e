"""The order in which several workers run the tests."""

from typing import Any

import pytest

from tests.order import COMPUTING, is_scene, ordered


class StandIn:
    """The properties of a test that determine its order."""

    def __init__(self, name: str, *, scene: bool, shared: bool = False) -> None:
        self.nodeid = name
        self.path = "a file" if shared else name
        self.fixturenames = () if shared else ("own_valkey",)
        self._is_scene = scene

    def get_closest_marker(self, name: str) -> object:
        """Return something if it has this marker."""
        return name if self._is_scene else None


def items_of(*, scenes: int, others: int, shared: int = 0) -> list[Any]:
    """Return this many tests, including some scenes that share their gateways."""
    return [
        *(StandIn(f"other {number}", scene=False) for number in range(others)),
        *(StandIn(f"shared {number}", scene=True, shared=True) for number in range(shared)),
        *(StandIn(f"scene {number}", scene=True) for number in range(scenes)),
    ]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("scenes", "others"), [(0, 0), (5, 0), (0, 5), (1, 1), (40, 3), (20, 300)])
def test_no_test_is_dropped_or_run_twice(workers: int, scenes: int, others: int) -> None:
    """Whatever the number of workers, the order has each test once."""
    items = items_of(scenes=scenes, others=others)
    assert sorted(item.nodeid for item in ordered(items, workers=workers)) == sorted(item.nodeid for item in items)


def test_equal_parts_begin_with_scenes_except_for_two() -> None:
    """Of as many parts as there are workers, all but two begin with equally many scenes, and those two have none."""
    made = ordered(items_of(scenes=20, others=380), workers=4)
    parts = [made[first : first + 100] for first in range(0, 400, 100)]
    assert [sum(map(is_scene, part)) for part in parts] == [10, 10, 0, 0]
    assert [all(map(is_scene, part[:10])) for part in parts] == [True, True, False, False]
    assert COMPUTING == 2


def test_scenes_that_share_their_gateways_stay_together() -> None:
    """They are in one part, one after the other: else each part would start the gateways again."""
    made = ordered(items_of(scenes=7, others=200, shared=12), workers=5)
    places = [place for place, item in enumerate(made) if item.nodeid.startswith("shared")]
    assert places == list(range(places[0], places[0] + 12))
