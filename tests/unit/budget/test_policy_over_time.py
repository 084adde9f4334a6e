"""The turns that callers get over minutes of simulated time: fair, the full budget, and never more than it."""

import pytest

from service.budget.scheduler.rules import Rules
from tests.unit.budget.simulation import Simulation

RULES = Rules(calls=5, window_ms=1000, transit_ms=500)


def simulation(*, replicas: int, seed: int, redis_ms: tuple[float, float] = (0.2, 1.0)) -> Simulation:
    return Simulation(RULES, replicas=replicas, redis_ms=redis_ms, upstream_ms=(0, 80), seed=seed)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_backlog_uses_98_percent_and_never_more_than_n_in_a_window(seed: int) -> None:
    """Eight replicas, forty callers, round trips of 0 to 80 ms: the budget is full, and kept."""
    scene = simulation(replicas=8, seed=seed)
    for number in range(40):
        caller, replica = f"c{number}", f"r{number % 8}"
        scene.at(number * 2, lambda caller=caller, replica=replica: scene.ask(replica, caller, count=25))
    scene.run(120_000)
    assert scene.most_in_a_window() == 5
    assert scene.use(since=3_000) >= 0.98


@pytest.mark.parametrize("seed", [1, 2])
def test_a_slow_redis_costs_use_but_never_exceeds_the_limit(seed: int) -> None:
    """With 0 to 80 ms each way to Redis no window has more than N, and the line still moves."""
    scene = simulation(replicas=4, seed=seed, redis_ms=(0, 80))
    for number in range(4):
        scene.at(0, lambda replica=f"r{number}": scene.ask(replica, "a", count=200))
    scene.run(60_000)
    assert scene.most_in_a_window() == 5
    assert scene.use(since=3_000) >= 0.80


def test_a_backlog_is_evenly_spaced() -> None:
    """Under a lasting backlog no two calls are bunched, and none are more than two gaps apart."""
    scene = simulation(replicas=4, seed=4)
    for number in range(4):
        scene.at(0, lambda replica=f"r{number}": scene.ask(replica, "a", count=200))
    scene.run(60_000)
    gaps = [later - earlier for earlier, later in zip(scene.begun, scene.begun[1:], strict=False)]
    assert min(gaps) >= RULES.gap_ms - RULES.ahead_ms - 2
    assert max(gaps) <= 2 * RULES.gap_ms + 2


def test_turns_are_shared_by_weight_whatever_the_replicas() -> None:
    """The light caller on one replica and the heavy one on three get turns 1 to 3."""
    scene = simulation(replicas=4, seed=5)
    scene.at(0, lambda: scene.ask("r0", "light", count=600))
    for number in (1, 2, 3):
        scene.at(0, lambda replica=f"r{number}": scene.ask(replica, "heavy", count=400, weight=3))
    scene.run(121_000)
    assert scene.served["heavy"] / scene.served["light"] == pytest.approx(3, rel=0.05)


def test_a_caller_that_requests_rarely_is_served_next() -> None:
    """Beside a thousand waiting requests, a caller with one every 2 s waits 0.3 s at the median and 0.7 s at most."""
    scene = simulation(replicas=2, seed=6)
    scene.at(0, lambda: scene.ask("r0", "greedy", count=1_000))
    for number in range(60):
        scene.at(2_000 + number * 1_937, lambda: scene.ask("r1", "rare"))
    scene.run(122_000)
    waits = sorted(scene.waits["rare"])
    assert len(waits) == 60
    assert waits[30] < 300
    assert waits[-1] < 700


def test_one_request_at_a_time_gives_no_advantage() -> None:
    """A caller that sends its next request whenever it is served gets no more than one with a backlog."""
    scene = simulation(replicas=2, seed=7)
    scene.at(0, lambda: scene.ask("r0", "patient", count=600))

    def again() -> None:
        if not scene.lines["r1"].get("eager"):
            scene.ask("r1", "eager")
        scene.at(scene.now + 5, again)

    scene.at(0, again)
    scene.run(90_000)
    assert 0.85 <= scene.served["eager"] / scene.served["patient"] <= 1.05
