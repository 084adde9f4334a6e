"""Callers that page beside watchers, in virtual time: they wait no longer than their fair share demands."""

import asyncio
import statistics
from collections.abc import Sequence
from functools import cache

import pytest
from msgspec.structs import replace

from service.model.freshness import CacheDirectives
from service.model.pages import PageRequest
from service.model.queries import Slice
from tests.simulation import sim_replica
from tests.simulation.sim_replica import Replica
from tests.simulation.test_watching import BLOCK_SIZE, QUERY, Mirror, MovingUpstream, ended, follow, named, sim_fleet
from tests.simulation.virtual_time import run_in_virtual_time

PAGING = 10
SECONDS = 180


@pytest.fixture(autouse=True)
def _large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sim_replica, "BLOCK_SIZE", BLOCK_SIZE)


async def _page(replica: Replica, name: str, waits_s: list[float]) -> None:
    """Request one page after the other, none of which is stored, until cancelled."""
    loop = asyncio.get_running_loop()
    number = 0
    while True:
        number += 1
        request = PageRequest(
            caller=named(name),
            query=replace(QUERY, keyword=f"{name} {number}"),
            slice=Slice(offset=0, limit=20),
            patience_s=30.0,
            directives=CacheDirectives(),
        )
        began_s = loop.time()
        await replica.gateway.page(request)
        waits_s.append(loop.time() - began_s)


async def _waits_s(watchers: int) -> list[float]:
    """Return the waits of ten callers that always page on two replicas, beside watchers of a list of 20 blocks."""
    upstream = MovingUpstream(1950)
    fleet, feeds = sim_fleet(upstream, replicas=2)
    mirrors = [Mirror() for _ in range(watchers)]
    tasks = [asyncio.create_task(follow(mirror, feeds[number % 2], "watcher")) for number, mirror in enumerate(mirrors)]
    await asyncio.sleep(30)
    waits_s: list[float] = []
    tasks += [asyncio.create_task(_page(fleet[number % 2], f"c{number}", waits_s)) for number in range(PAGING)]
    for _ in range(SECONDS):
        await asyncio.sleep(1)
        upstream.change()
    assert all(len(mirror.titles) > 1900 for mirror in mirrors)
    await ended(tasks)
    assert upstream.worst_second("a") <= 5
    for replica in fleet:
        await replica.aclose()
    return waits_s


@cache
def _alone_s() -> list[float]:
    """Return the waits without watchers, in order; the same each time."""
    return sorted(run_in_virtual_time(lambda: _waits_s(0)))


@pytest.mark.parametrize("watchers", [1, 40])
def test_watchers_of_a_caller_delay_others_as_one_caller_does(watchers: int) -> None:
    """Watchers of one caller take the turns of one caller, however many: ten others wait as if an eleventh paged."""
    alone = _alone_s()
    beside = sorted(run_in_virtual_time(lambda: _waits_s(watchers)))
    waits = f"alone {_described(alone)}, beside {watchers} watchers {_described(beside)}"
    print(waits)
    assert len(alone) > 0.95 * 5 * SECONDS / 1.05, waits
    assert statistics.fmean(beside) <= statistics.fmean(alone) * (PAGING + 1) / PAGING * 1.02, waits
    assert beside[-1] <= alone[-1] * (PAGING + 1) / PAGING + 0.4, waits


def _described(waits_s: Sequence[float]) -> str:
    return f"mean {statistics.fmean(waits_s):.2f} s, most {waits_s[-1]:.2f} s of {len(waits_s)}"
