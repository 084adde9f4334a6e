"""A day of many callers on one app, simulated: how many calls they need, how long they wait, how much is stale.

The gateway's own code in virtual time, on the engine of `tests.simulation`. `make bench-simulation` writes
docs/benchmarks/day.md with it.
"""

import asyncio
import bisect
import itertools
import random
import sys
import time
from collections import Counter
from pathlib import Path

import structlog

from service.budget.scheduler.rules import Rules
from service.model.callers import Caller
from service.model.errors import TaskgateError
from service.model.freshness import CacheDirectives, Lifetimes
from service.model.pages import PageRequest, Source
from service.model.queries import FromNow, Query, Slice
from tests.bench.machine import facts, table
from tests.simulation.memory_redis import MemoryRedis
from tests.simulation.model_scheduler import model_servers
from tests.simulation.sim_replica import BLOCK_SIZE, Replica
from tests.simulation.sim_upstream import CALL_TIMEOUT_S, SimUpstream
from tests.simulation.virtual_time import run_in_virtual_time
from tests.windows import most_in_window

CALLERS = 10_000
REPLICAS = 3
HOURS = 24
QUERIES = 100
ZIPF = 1.1
PAGES = 4
PATIENCE_S = 10.0
BUSY_SHARE = 0.8
"""The share of a day's requests in the ten busiest hours."""
RULES = Rules(calls=5, window_ms=1000, transit_ms=500, fetch_lease_ms=int(CALL_TIMEOUT_S * 1000) + 500)
LIFETIMES = Lifetimes(fresh_s=15, settled_s=600, refusal_s=60, stale_while_revalidate_s=60, stale_if_error_s=3600)


HEAD = (
    "requests per caller",
    "requests",
    "calls",
    "requests per call",
    "wait p50 (s)",
    "p90",
    "p99",
    "p99.9",
    "longest",
    "stale",
    "refused",
    "worst second",
)


class Day:
    """The results of a day."""

    def __init__(self) -> None:
        self.requests = 0
        self.sources: Counter[str] = Counter()
        self.waits_s: list[float] = []
        self.calls = 0

    def row(self, asked: int, worst: int) -> tuple[str, ...]:
        """One line of the table."""
        waits = sorted(self.waits_s)
        shown = [f"{waits[min(int(len(waits) * share), len(waits) - 1)]:.2f}" for share in (0.5, 0.9, 0.99, 0.999)]
        stale = self.sources[Source.STALE] / self.requests
        refused = sum(count for name, count in self.sources.items() if name not in set(Source)) / self.requests
        cells = [f"{asked}", f"{self.requests:,}", f"{self.calls:,}", f"{self.requests / max(self.calls, 1):.1f}"]
        cells += [*shown, f"{waits[-1]:.2f}", f"{stale:.1%}", f"{refused:.2%}", f"{worst}"]
        return tuple(cells)


def busy_hours(chance: random.Random) -> float:
    """Draw a moment of the day, in seconds: most callers are active from eight to six."""
    if chance.random() < BUSY_SHARE:
        return chance.uniform(8, 18) * 3600
    return chance.uniform(0, HOURS) * 3600


async def simulated(asked_each: int, *, callers: int, seed: int = 1) -> tuple[Day, int]:
    """Simulate a day in which each caller makes this many requests; return it with the worst window at the upstream."""
    loop, chance, day = asyncio.get_running_loop(), random.Random(seed), Day()
    redis = MemoryRedis(loop.time)
    servers = model_servers(("shop",), RULES, redis, chance=lambda _: random.Random(seed + 1))
    upstream = SimUpstream(
        random.Random(seed + 2), round_trip_s=(0.05, 0.25), transit_s=0.5, slow_connects=0.0, total=PAGES * BLOCK_SIZE
    )
    replicas = [
        Replica(
            f"r{number}",
            apps=("shop",),
            servers=servers,
            redis=redis,
            upstream=upstream,
            rules=RULES,
            lifetimes=LIFETIMES,
            chance=random.Random(seed + 10 + number),
            delay_s=(0.0002, 0.001),
            memory_bytes=64 * 1024 * 1024,
            wall_s=lambda: 1_700_000_000 + loop.time(),
        )
        for number in range(REPLICAS)
    ]
    for replica in replicas:
        replica.start()
    cumulated = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, QUERIES + 1)))
    apps = frozenset({"shop"})
    known = [
        Caller(name=f"c{number}", apps=apps, weight=1.0, waiting_max=20, wait_max_s=60) for number in range(callers)
    ]

    async def ask(caller: Caller, number: int, page: int) -> None:
        query = Query(app="shop", since=FromNow(offset_s=-86_400), until=FromNow(offset_s=0), keyword=f"q{number}")
        request = PageRequest(
            caller=caller,
            query=query,
            slice=Slice(offset=page * BLOCK_SIZE, limit=BLOCK_SIZE),
            patience_s=PATIENCE_S,
            directives=CacheDirectives(),
        )
        asked_s = loop.time()
        try:
            day.sources[(await chance.choice(replicas).gateway.page(request)).source] += 1
        except TaskgateError as exc:
            day.sources[type(exc).__name__] += 1
        day.waits_s.append(loop.time() - asked_s)

    moments = sorted((busy_hours(chance), caller) for caller in range(callers) for _ in range(asked_each))
    under_way: set[asyncio.Task[None]] = set()
    for at_s, caller in moments:
        await asyncio.sleep(at_s - loop.time())
        number = bisect.bisect(cumulated, chance.random() * cumulated[-1])
        task = asyncio.create_task(ask(known[caller], number, chance.choice([0, 0, 0, *range(PAGES)])))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    while under_way:
        await asyncio.wait(under_way)
    for replica in replicas:
        await replica.aclose()
    day.requests, times = len(moments), sorted(upstream.arrived_at_s["shop"])
    day.calls = len(times)
    return day, most_in_window(times, 1.0)


def document(*, callers: int = CALLERS, rates: tuple[int, ...] = (10,)) -> str:
    """The table, with its conditions."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    began_s, rows = time.monotonic(), []
    for asked_each in rates:
        day, worst = run_in_virtual_time(lambda asked_each=asked_each: simulated(asked_each, callers=callers))
        rows.append(day.row(asked_each, worst))
    scene = (
        f"The gateway's own code in virtual time: {REPLICAS} replicas, one app with {RULES.calls} calls a second, "
        f"{callers:,} callers. Each sends the given number of requests for one of {QUERIES} lists (Zipf {ZIPF}), "
        f"mostly for its first block, {BUSY_SHARE:.0%} of them from 8 to 18 h; patience {PATIENCE_S:g} s, fresh for "
        f"{LIFETIMES.fresh_s:g} s, then served stale while renewed for {LIFETIMES.stale_while_revalidate_s:g} s. "
        "A call takes 50 to 250 ms."
    )
    made = f"Written by `make bench-simulation` in {time.monotonic() - began_s:.0f} s on: {facts()}."
    return "\n".join((f"# A day of {callers:,} callers", "", scene, "", table(HEAD, rows), "", made, ""))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document(), encoding="utf-8")
