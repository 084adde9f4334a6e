"""A hundred or so seeds of the simulation; `make simulate` runs any number."""

import pytest

from service.budget.line import turns
from service.budget.line.line import Line
from tests.simulation.plan import draw, smaller
from tests.simulation.run import plan_of, report
from tests.simulation.world import shrunk, simulate

CHUNK = 20


@pytest.mark.parametrize("chunk", range(10))
def test_invariants_hold_for_each_seed(chunk: int) -> None:
    """Safety, liveness, use, work and memory hold under each seed's faults."""
    for seed in range(chunk * CHUNK + 1, (chunk + 1) * CHUNK + 1):
        outcome = simulate(plan_of(seed))
        assert outcome.violated is None, report(outcome)


def test_the_same_seed_gives_the_same_history() -> None:
    """The same seed fails in the same way again, so that a failure can be reproduced."""
    first, second = simulate(draw(9)), simulate(draw(9))
    assert (first.requests, first.calls) == (second.requests, second.calls)
    assert first.requests > 100
    assert first.calls > 50


def test_a_loss_of_liveness_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that receives no messages and looks only once an hour is found within a few seeds."""
    monkeypatch.setattr(Line, "heard", lambda *_: None)
    monkeypatch.setattr(turns, "LOOK_S", 3600.0)
    outcome = next(each for seed in range(120, 160) if (each := simulate(draw(seed))).violated)
    assert outcome.violated is not None
    less = shrunk(outcome.plan, outcome.violated, smaller=smaller, tries=5)
    assert len(less.callers) + len(less.faults) <= len(outcome.plan.callers) + len(outcome.plan.faults)
    assert "VIOLATED" in report(simulate(less))
