"""Some hundred seeds of the simulation; `make simulate` runs as many as one likes."""

import pytest

from service.budget.line import turns
from service.budget.line.line import Line
from tests.simulation.plan import draw, smaller
from tests.simulation.run import plan_of, report
from tests.simulation.world import shrunk, simulate

CHUNK = 20


@pytest.mark.parametrize("chunk", range(10))
def test_nothing_that_must_not_happen_does_and_what_must_happen_does(chunk: int) -> None:
    """Safety, liveness, use, work and memory hold under each seed's faults."""
    for seed in range(chunk * CHUNK + 1, (chunk + 1) * CHUNK + 1):
        outcome = simulate(plan_of(seed))
        assert outcome.violated is None, report(outcome)


def test_the_same_seed_is_the_same_history() -> None:
    """A failing seed can be looked into: it fails the same way again."""
    first, second = simulate(draw(9)), simulate(draw(9))
    assert (first.requests, first.calls) == (second.requests, second.calls)
    assert first.requests > 100
    assert first.calls > 50


def test_a_loss_of_liveness_is_found_and_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that hears no messages and looks for itself once an hour is found within a few seeds."""
    monkeypatch.setattr(Line, "heard", lambda *_: None)
    monkeypatch.setattr(turns, "LOOK_S", 3600.0)
    outcome = next(each for seed in range(120, 160) if (each := simulate(draw(seed))).violated)
    assert outcome.violated is not None
    less = shrunk(outcome.plan, outcome.violated, smaller=smaller, tries=5)
    assert len(less.callers) + len(less.faults) <= len(outcome.plan.callers) + len(outcome.plan.faults)
    assert "VIOLATED" in report(simulate(less))
