"""Rules that can't be kept are rejected at startup, by name."""

import math

import pytest

from service.budget.scheduler.interfaces import WaitingCount
from service.budget.scheduler.rules import Rules


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("calls", 0),
        ("calls", 2.5),
        ("calls", True),
        ("window_ms", 0),
        ("window_ms", -1),
        ("transit_ms", -1),
        ("turn_lease_ms", 10),
        ("report_lease_ms", 1),
        ("fetch_lease_ms", 0),
        ("ahead_ms", 1000),
        ("ahead_ms", -1),
        ("clock_step_ms", 0),
        ("window_ms", 10**12),
    ],
)
def test_rules_that_cannot_be_kept_are_refused_by_name(name: str, value: float) -> None:
    """The message begins with the field's name."""
    fields = {"calls": 5, "window_ms": 1000, "transit_ms": 500, name: value}
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Rules(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("weight", [0, -1, math.nan, math.inf])
def test_a_weight_that_is_not_finite_and_above_0_is_refused(weight: float) -> None:
    """No caller can stop the line by its weight."""
    with pytest.raises(ValueError, match=r"^weight of a must be"):
        WaitingCount(caller="a", weight=weight, count=1, waited_ms=0)
