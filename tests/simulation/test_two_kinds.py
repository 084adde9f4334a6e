"""Two kinds of calls of one app: each has its budget, and neither delays the other."""

from collections.abc import Iterator

import msgspec

from tests.simulation.plan import CallerPlan, Plan, calm
from tests.simulation.virtual_time import run_in_virtual_time
from tests.simulation.world import World


def arrivals_s(plan: Plan) -> dict[str, list[float]]:
    """Run a plan, with all of a simulation's invariants; return when calls were counted, by budget."""
    worlds: list[World] = []

    async def run() -> None:
        worlds.append(World(plan))
        await worlds[0].run()

    run_in_virtual_time(run)
    return {budget: sorted(times) for budget, times in worlds[0].upstream.arrived_at_s.items()}


def _task_callers(count: int) -> Iterator[CallerPlan]:
    for number in range(count):
        yield CallerPlan(
            name=f"t{number}",
            kind="task backlog",
            app="shop",
            query=number,
            weight=1.0,
            starts_s=2.0,
            period_s=0.01,
            patience_s=30.0,
        )


def test_a_full_budget_for_tasks_delays_no_list() -> None:
    """With a backlog of both, lists are called at the very moments at which they are without tasks; tasks as often."""
    lists = msgspec.structs.replace(calm(3), replicas=3, calls=5, redis_s=(0.001, 0.001), duration_s=20.0)
    both = msgspec.structs.replace(lists, callers=(*lists.callers, *_task_callers(4)))
    alone, beside = arrivals_s(lists), arrivals_s(both)
    assert len(alone["shop"]) > 80
    assert beside["shop"] == alone["shop"]
    calls = {budget: sum(4.0 < at_s < 20.0 for at_s in times) for budget, times in beside.items()}
    assert calls["shop/get"] > 0.95 * calls["shop"]
