"""The order in which several workers run the tests."""

from pathlib import Path
from typing import Any

import pytest

from tests.order import measures_time, ordered


class StandIn:
    """The properties of a test that determine its order."""

    def __init__(self, name: str, directory: str, *, shared: bool = False) -> None:
        self.nodeid = name
        self.path = Path("tests", directory, "test_shared.py" if shared else name)
        self.fixturenames = () if shared else ("own_valkey",)


def items_of(*, measuring: int, others: int, shared: int = 0) -> list[Any]:
    """Return this many tests, including some that share their gateways."""
    return [
        *(StandIn(f"other {number}", "unit/web") for number in range(others)),
        *(StandIn(f"shared {number}", "scenes", shared=True) for number in range(shared)),
        *(StandIn(f"scene {number}", ("scenes", "integration/store")[number % 2]) for number in range(measuring)),
    ]


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("measuring", "others"), [(0, 0), (5, 0), (0, 5), (1, 1), (40, 3), (20, 300)])
def test_no_test_is_dropped_or_run_twice(workers: int, measuring: int, others: int) -> None:
    """Whatever the number of workers, the order has each test once."""
    items = items_of(measuring=measuring, others=others)
    assert sorted(item.nodeid for item in ordered(items, workers=workers)) == sorted(item.nodeid for item in items)


def test_equal_parts_begin_with_tests_that_measure_time_except_for_one() -> None:
    """Of as many parts as there are workers, all but one begin with equally many of them, and that one has none."""
    made = ordered(items_of(measuring=30, others=370), workers=4)
    parts = [made[first : first + 100] for first in range(0, 400, 100)]
    assert [sum(map(measures_time, part)) for part in parts] == [10, 10, 10, 0]
    assert [all(map(measures_time, part[:10])) for part in parts] == [True, True, True, False]


def test_scenes_that_share_their_gateways_stay_together() -> None:
    """They are in one part, one after the other: else each part would start the gateways again."""
    made = ordered(items_of(measuring=7, others=200, shared=12), workers=5)
    places = [place for place, item in enumerate(made) if item.nodeid.startswith("shared")]
    assert places == list(range(places[0], places[0] + 12))
