"""The simulated day of many callers, on a small scale."""

from service.model.pages import Source
from tests.bench.day import simulated
from tests.simulation.virtual_time import run_in_virtual_time


def test_every_request_of_a_day_is_answered_within_the_limit() -> None:
    """Every request is answered, none is refused, and no second holds a sixth call."""
    day, worst = run_in_virtual_time(lambda: simulated(10, callers=40))
    assert day.requests == sum(day.sources.values()) == len(day.waits_s) == 400
    assert set(day.sources) <= set(Source)
    assert day.calls > 0
    assert max(day.waits_s) < 10
    assert worst <= 5
