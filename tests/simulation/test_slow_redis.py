"""How much of the budget a backlog uses if Redis is slow: lines on the model of the script, in virtual time."""

import asyncio
import random
from collections.abc import Iterator
from itertools import count

import pytest

from service.budget.line.jobs import CallFailed, HeldSlot
from service.budget.line.line import Line
from service.budget.scheduler.interfaces import Rules
from service.model.blocks import CachedBlock
from service.model.calls import CallKind
from tests.queued_jobs import JobOfNothing, cached
from tests.simulation.invariants import limit_holds
from tests.simulation.memory_redis import MemoryRedis, Network
from tests.simulation.model_scheduler import ModelScheduler, ModelServer
from tests.simulation.virtual_time import run_in_virtual_time

RULES = Rules(calls=5, window_ms=1000, transit_ms=500)
SINCE_S, UNTIL_S = 5.0, 65.0


class Upstream:
    """Calls of 0 to 80 ms; when each arrived, and how long all took."""

    def __init__(self, chance: random.Random) -> None:
        self.arrived_at_s: list[float] = []
        self.took_s: list[float] = []
        self._chance = chance

    async def call(self) -> None:
        """Make a call."""
        took_s = self._chance.uniform(0, 0.08)
        self.arrived_at_s.append(asyncio.get_running_loop().time() + self._chance.uniform(0, took_s))
        self.took_s.append(took_s)
        await asyncio.sleep(took_s)

    def use(self) -> float:
        """The share of N / (W + round trip) that was used."""
        made = sum(SINCE_S <= at_s < UNTIL_S for at_s in self.arrived_at_s)
        cycle_s = RULES.window_ms / 1000 + sum(self.took_s) / len(self.took_s)
        return made * cycle_s / RULES.calls / (UNTIL_S - SINCE_S)


class Fetch(JobOfNothing):
    """A job that makes one call."""

    def __init__(self, upstream: Upstream, name: str) -> None:
        super().__init__(name)
        self._upstream = upstream

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call."""
        await slot.hold()
        await self._upstream.call()
        return cached(self.block_key)


def _used(*, replicas: int, callers: int, way_s: tuple[float, float], seed: int) -> float:
    chance = random.Random(seed)
    upstream = Upstream(chance)

    async def run() -> None:
        server = ModelServer(RULES, MemoryRedis(asyncio.get_running_loop().time), app="shop", kind=CallKind.LIST, chance=chance)
        lines = [
            Line(
                ModelScheduler(server, Network(chance, delay_s=way_s), rules=RULES, replica=f"r{number}", on_call=lambda _: None),
                app="shop",
                rules=RULES,
            )
            for number in range(replicas)
        ]
        names: Iterator[int] = count()
        asked = []
        for line in lines:
            line.start()
            for number in range(400):
                job = Fetch(upstream, f"b{next(names)}")
                asked.append(asyncio.create_task(line.fetch(job, caller=f"c{number % callers}", weight=1.0, patience_s=1e6, bound=1_000)))
        await asyncio.sleep(UNTIL_S)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.gather(*(line.aclose() for line in lines))

    run_in_virtual_time(run)
    limit_holds(upstream.arrived_at_s, budget="shop", calls=RULES.calls, window_s=RULES.window_ms / 1000)
    return upstream.use()


if __name__ == "__main__":
    for way in ((0.0002, 0.001), (0.0, 0.01), (0.0, 0.03), (0.0, 0.08), (0.04, 0.04), (0.08, 0.08)):
        for replicas, callers in ((1, 1), (1, 10), (4, 1), (4, 5), (8, 20)):
            used = [_used(replicas=replicas, callers=callers, way_s=way, seed=seed) for seed in (1, 2)]
            print(way, replicas, callers, *(f"{each:.1%}" for each in used))
