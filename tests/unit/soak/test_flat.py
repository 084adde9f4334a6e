"""The soak's verdict: growth is named, stable measures are not."""

import pytest

from tests.soak.flat import GROWTH, MEASURES, Sample, grown, left_over

CALM = dict.fromkeys(MEASURES, 100.0)


def _samples(name: str, values: list[float]) -> list[Sample]:
    return [Sample(at_s=2.0 * at, values=CALM | {name: value}) for at, value in enumerate(values)]


@pytest.mark.parametrize("name", MEASURES)
def test_steady_growth_is_reported(name: str) -> None:
    """Any measure whose last third lies above the middle third by more than is allowed is named, and no other."""
    step = GROWTH[name] / 10 * 1.1
    found = grown(_samples(name, [100 + step * at for at in range(30)]))
    assert [each.split(" grew ")[0] for each in found] == [name]


@pytest.mark.parametrize("name", MEASURES)
def test_a_start_and_a_spike_are_not_growth(name: str) -> None:
    """Filling up in the first third, and a few high samples later, don't count against a run."""
    assert grown(_samples(name, [0.0] * 10 + [100.0] * 17 + [900.0] * 3)) == []


def test_leftovers_of_the_load_are_reported() -> None:
    """Tasks, keys and file handles above their values before the load are named."""
    before = Sample(at_s=0, values=CALM)
    for name in ("tasks", "file handles", "Redis keys"):
        found = left_over(before, Sample(at_s=0, values=CALM | {name: 120.0}))
        assert [each.startswith(name) for each in found] == [True]


def test_pooled_connections_are_not_left_over() -> None:
    """A connection to Redis that stays in the pool takes a file handle, and is no leak."""
    before = Sample(at_s=0, values=CALM)
    after = Sample(at_s=0, values=CALM | {"Redis connections": 120.0, "file handles": 120.0})
    assert left_over(before, after) == []
