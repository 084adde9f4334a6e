"""How much of the budget a backlog uses if Redis is slow: lines on the model of the script, in virtual time."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest

from service.budget.line.jobs import CallFailed, HeldSlot
from service.budget.line.line import Line
from service.budget.scheduler.rules import Rules
from service.model.blocks import CachedBlock
from service.model.calls import CallKind
from tests.queued_jobs import JobOfNothing, cached
from tests.simulation.invariants import limit_holds
from tests.simulation.memory_redis import MemoryRedis, Network
from tests.simulation.model_scheduler import ModelScheduler, ModelServer
from tests.simulation.virtual_time import run_in_virtual_time

RULES = Rules(calls=5, window_ms=1000, transit_ms=500)
SINCE_S, UNTIL_S = 5.0, 35.0


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
    """The use of half a minute in which each replica has 200 blocks waiting; no window has a call too many."""
    chance = random.Random(seed)
    upstream = Upstream(chance)

    async def run() -> None:
        redis = MemoryRedis(asyncio.get_running_loop().time)
        server = ModelServer(RULES, redis, app="shop", kind=CallKind.LIST, chance=chance)
        asked = []
        async with AsyncExitStack() as lines:
            for number in range(replicas):
                network = Network(chance, delay_s=way_s)
                scheduler = ModelScheduler(server, network, rules=RULES, replica=f"r{number}", on_call=lambda _: None)
                line = Line(scheduler, app="shop", rules=RULES)
                line.start()
                lines.push_async_callback(line.aclose)
                asked += [
                    asyncio.create_task(
                        line.fetch(
                            Fetch(upstream, f"b{number}-{block}"),
                            caller=f"c{block % callers}",
                            weight=1.0,
                            patience_s=1e6,
                            bound=1_000,
                        )
                    )
                    for block in range(200)
                ]
            await asyncio.sleep(UNTIL_S)
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    run_in_virtual_time(run)
    limit_holds(upstream.arrived_at_s, budget="shop", calls=RULES.calls, window_s=RULES.window_ms / 1000)
    return upstream.use()


@pytest.mark.parametrize(
    ("way_s", "least"),
    [((0.0002, 0.001), 0.985), ((0.0, 0.03), 0.97), ((0.0, 0.08), 0.95)],
    ids=["at once", "0 to 30 ms", "0 to 80 ms"],
)
def test_a_backlog_uses_the_budget_however_long_the_way_to_redis_is(way_s: tuple[float, float], least: float) -> None:
    """Turns begin while their slots still rest, by two ways ahead: 95% with 0 to 80 ms each way, and never over."""
    fleets = ((1, 1), (1, 10), (4, 1), (4, 5), (8, 20)) * 2  # the mean of five depends on their seeds
    used = [
        _used(replicas=replicas, callers=callers, way_s=way_s, seed=seed)
        for seed, (replicas, callers) in enumerate(fleets)
    ]
    assert sum(used) / len(used) >= least, used
    assert min(used) >= least - 0.01, used
