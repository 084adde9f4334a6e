"""The script over a simulated minute: the same scenario as the policy's, on a real Valkey."""

from typing import Any

import pytest
import redis

from service.budget.scheduler.interfaces import Beginning, Ticked, TickRequest
from service.budget.scheduler.policy.state import Reading
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from tests.contract.scheduler_world import StoreHere, run, server
from tests.unit.budget.simulation import Simulation

RULES = Rules(calls=5, window_ms=1000, transit_ms=500)


class InRedis:
    """Replaces the policy in a simulation: each step is the script's, by each scheduler's own clock."""

    def __init__(self, client: redis.Redis) -> None:
        self.epoch = 0
        self.now = 0
        self._reading = Reading(raw_ms=0, run_id="a", epoch=0, seen_ms=0, ahead_ms=0, chance=1)
        self._client = client
        self._replicas: dict[str, RedisScheduler] = {}

    def _of(self, replica: str, reading: Reading) -> RedisScheduler:
        self._reading = reading
        if replica not in self._replicas:
            self._replicas[replica] = RedisScheduler(
                StoreHere(self._client),  # type: ignore[arg-type]
                prefix="tg",
                app="news",
                replica=replica,
                rules=RULES,
                clock_ms=lambda: float(self._reading.raw_ms),
                chance=lambda: self._reading.chance,
                server_ms=lambda: self._reading.raw_ms,
            )
        return self._replicas[replica]

    def tick(self, reading: Reading, replica: str, request: TickRequest) -> Ticked:
        """See `Policy.tick`."""
        return run(self._of(replica, reading).tick(request))

    def begin(self, reading: Reading, replica: str, turn: int, *, block: str, known: bytes, stored: bytes) -> Beginning:
        """See `Policy.begin`; nothing is stored in this scenario."""
        assert not stored
        return run(self._of(replica, reading).begin(turn, block=block, known=known))

    def done(self, reading: Reading, replica: str, turn: int, **how: Any) -> None:
        """See `Policy.done`."""
        run(self._of(replica, reading).done(turn, **how))


def test_the_script_gives_what_the_rules_promise_over_a_minute() -> None:
    """Eight replicas, weights 1 and 3, a rare third caller: the budget is fully used, never exceeded and fairly
    shared, and the third is served next."""
    with server() as client:
        scene = Simulation(RULES, replicas=8, redis_ms=(0.2, 1), upstream_ms=(0, 80), seed=9)
        scene.policy = InRedis(client)  # type: ignore[assignment]
        for number in range(8):
            scene.at(0, lambda replica=f"r{number}": scene.ask(replica, "light", count=100))
            scene.at(1, lambda replica=f"r{number}": scene.ask(replica, "heavy", count=100, weight=3))
        for number in range(25):
            scene.at(3_000 + number * 2_137, lambda: scene.ask("r3", "rare"))
        scene.run(61_000)
        assert scene.most_in_a_window() == 5
        assert scene.use(since=3_000) >= 0.98
        assert scene.served["heavy"] / scene.served["light"] == pytest.approx(3, rel=0.05)
        assert sorted(scene.waits["rare"])[12] < 300
        assert max(scene.waits["rare"]) < 700
