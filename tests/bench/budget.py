"""`make bench-budget`: the cost of the budget. Prints a page of tables; docs/benchmarks/budget.md is one such run."""

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from service.budget.line.jobs import CallFailed, HeldSlot
from service.budget.line.line import Line
from service.budget.scheduler.interfaces import TickRequest, WaitingCount
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.model.blocks import CachedBlock
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.bench.machine import facts, table
from tests.queued_jobs import JobOfNothing, cached
from tests.scenes.fleet import fleet, get, key_of
from tests.servers import Server

RULES = Rules(calls=5, window_ms=1000, transit_ms=500)
PAUSED = Rules(calls=5, window_ms=1000, transit_ms=500, report_lease_ms=60_000)
# Slots that are free again at once, so that every round of the measurement has a turn to give.
QUICK = Rules(calls=5, window_ms=5, transit_ms=0, ahead_ms=0, turn_lease_ms=50, report_lease_ms=60_000)
CALLS = 60

HEAD = """# The cost of the budget

One run of `make bench-budget`. The figures depend on the machine: compare ratios, not numbers.

{facts}; Valkey over loopback.

## Script time

Microseconds of server time per call (`INFO commandstats`), by the number of waiting callers, blocks that wait on each
replica in total, and replicas that report. Most ticks are quiet: they can't give a turn.
"""
TICKS = """
A tick that may give a turn reads the callers that come next, that hold turns or that have changed, however many wait
(docs/adr/0003-turns.md). Here it gives five turns after five have lapsed. The cost of reporting depends on the number
of callers whose counts have changed.

## Ticks under a lasting backlog

Lines of simulated replicas in one process; 5 calls in 1 s, each taking 50 ms. Every replica has 20 callers that wait
for 50 blocks each.
"""
FETCH = """
## The cost of an uncontended fetch

Pages through one gateway, each from a block that must be fetched, with free slots.
"""


def main() -> None:
    """Run all measurements and print the page."""
    print(asyncio.run(_page()))


async def _page() -> str:
    with Server() as server:
        parts = (
            HEAD.format(facts=facts()),
            await _script_times(server),
            TICKS,
            await _ticks(server),
            FETCH,
            await _added_latency(server),
        )
    return "\n".join(parts)


def _store(server: Server) -> RedisStore:
    return RedisStore(RedisSettings(url=server.url, timeout_s=5.0))


class _Waiting:
    """Callers that always wait."""

    def __init__(self, callers: int, blocks: int) -> None:
        self._callers = callers
        self._each = max(blocks // callers, 1)
        self._since_s = time.monotonic()

    @property
    def report(self) -> tuple[WaitingCount, ...]:
        """The current report."""
        waited_ms = int((time.monotonic() - self._since_s) * 1000)
        return tuple(
            WaitingCount(caller=f"caller-{n}", weight=1.0 + n % 3, count=self._each, waited_ms=waited_ms + n)
            for n in range(self._callers)
        )


def _spent_us(server: Server) -> tuple[float, int]:
    stats: Any = server.run("INFO", "commandstats").get("cmdstat_evalsha", {"usec": 0.0, "calls": 0})
    return float(stats["usec"]), int(stats["calls"])


async def _script_times(server: Server) -> str:
    rows: list[tuple[str, ...]] = []
    for callers, blocks, replicas in (
        (10, 10, 1),
        (10, 1_000, 1),
        (10, 10_000, 1),
        (10, 10_000, 8),
        (100, 10_000, 1),
        (100, 10_000, 8),
        (100, 10_000, 50),
        (1_000, 10_000, 1),
        (1_000, 10_000, 8),
        (1_000, 10_000, 50),
    ):
        rows.append(await _one_size(server, callers, blocks, replicas))
    head = ("callers", "blocks", "replicas", "tick, quiet", "tick, gives", "begin", "done", "kB in Redis")
    return table(head, rows)


async def _one_size(server: Server, callers: int, blocks: int, replicas: int) -> tuple[str, ...]:
    """One replica after the other ticks, and uses its turn if it gets one."""
    server.run("FLUSHALL")
    store = _store(server)
    waiting = _Waiting(callers, blocks)
    paused, quick = (
        [RedisScheduler(store, prefix=prefix, app="shop", replica=f"r{n}", rules=rules) for n in range(replicas)]
        for prefix, rules in (("paused", PAUSED), ("quick", QUICK))
    )
    for scheduler in (*paused, *quick):
        await scheduler.tick(TickRequest(waiting=waiting.report))
    spent: dict[str, list[float]] = {"quiet": [], "gives": [], "begin": [], "done": []}
    for n in range(CALLS):
        with _counted(server, spent["quiet"]):
            await paused[n % replicas].tick(TickRequest(waiting=waiting.report, quiet=True))
        await asyncio.sleep(0.08)  # until unused turns have lapsed: all slots are free then
        with _counted(server, spent["gives"]):
            await quick[n % replicas].tick(TickRequest(waiting=waiting.report))
        for scheduler in quick:
            await _use_all(server, scheduler, waiting, spent)
    memory_kb = sum(int(server.run("MEMORY", "USAGE", key) or 0) for key in server.run("KEYS", "quick*")) / 1000
    await store.aclose()
    figures = (f"{statistics.median(each):.0f}" for each in spent.values())
    return (f"{callers:,}", f"{blocks:,}", str(replicas), *figures, f"{memory_kb:.1f}")


async def _use_all(server: Server, scheduler: RedisScheduler, waiting: _Waiting, spent: dict[str, list[float]]) -> None:
    """Begin and end all turns that this replica holds."""
    ticked = await scheduler.tick(TickRequest(waiting=waiting.report))
    for turn in ticked.turns:
        with _counted(server, spent["begin"]):
            await scheduler.begin(turn.id, block=f"b{turn.id}", known=b"")
        with _counted(server, spent["done"]):
            await scheduler.done(turn.id, block=f"b{turn.id}", pause_ms=0, pause_reason="")


@contextmanager
def _counted(server: Server, spent_us: list[float]) -> Iterator[None]:
    """Record the server's own time for the script call in the block, in microseconds."""
    before_us, _ = _spent_us(server)
    yield
    spent_us.append(_spent_us(server)[0] - before_us)


class _Block(JobOfNothing):
    """A job that takes 50 ms."""

    def __init__(self, name: str) -> None:
        super().__init__(f"bench:{{shop}}:{name}")

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call."""
        await slot.hold()
        await asyncio.sleep(0.05)
        return cached(self.block_key)


async def _ticks(server: Server, *, seconds: float = 8.0) -> str:
    rows = []
    for replicas in (1, 8, 50):
        server.run("FLUSHALL")
        store = _store(server)
        lines: list[Line] = [
            Line(
                RedisScheduler(store, prefix="bench", app="shop", replica=f"r{n}", rules=RULES),
                app="shop",
                rules=RULES,
            )
            for n in range(replicas)
        ]
        names = count()
        for line in lines:
            line.start()
        asked = [
            asyncio.create_task(
                line.fetch(_Block(str(next(names))), caller=f"c{n % 20}", weight=1.0, patience_s=1e6, bound=10_000)
            )
            for line in lines
            for n in range(1000)
        ]
        await asyncio.sleep(3)
        server.run("CONFIG", "RESETSTAT")
        before_s, served = _cpu_s(server), sum(task.done() for task in asked)
        await asyncio.sleep(seconds)
        _, calls = _spent_us(server)
        cpu = (_cpu_s(server) - before_s) / seconds
        used = (sum(task.done() for task in asked) - served) / seconds
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await asyncio.gather(*(line.aclose() for line in lines))
        await store.aclose()
        rows.append((str(replicas), f"{calls / seconds:.0f}", f"{cpu:.1%}", f"{used * 1.05 / 5:.0%}"))
    return table(("replicas", "script calls a second", "Valkey's CPU time", "of the possible calls"), rows)


def _cpu_s(server: Server) -> float:
    info: Any = server.run("INFO", "cpu")
    return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])


async def _added_latency(server: Server, *, rounds: int = 150) -> str:
    """Compare a page that must be fetched through a gateway with the same call made directly, in turn."""
    server.run("FLUSHALL")
    budget = {"calls": 5, "window_s": 0.02, "transit_s": 0.5}
    async with fleet(server, replicas=1, budget=budget, sandbox_calls=1000) as gateways:
        through, upstream = [], []
        for n in range(rounds):
            answer = await gateways.page(0, q=f"fetch {n}")
            assert answer.status == 200, answer.body
            through.append(answer.took_s - answer.upstream_s)
            upstream.append(answer.upstream_s)
            await asyncio.sleep(0.03)
        hits = []
        for _ in range(rounds):
            answer = await get(gateways.replicas[0].port, "/apps", {"Authorization": f"Bearer {key_of('c0')}"})
            hits.append(answer.took_s)
    rows = [
        ("the call itself, inside the gateway", _ms(upstream)),
        ("the rest of the request: connection, HTTP, cache, tick, begin", _ms(through)),
        ("of that, a request without lookups (`GET /apps`)", _ms(hits)),
        ("so the budget and the cache add", f"{(statistics.median(through) - statistics.median(hits)) * 1000:.2f} ms"),
    ]
    return table(("part", "median (90th percentile)"), rows)


def _ms(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:.2f} ms ({ordered[len(ordered) * 9 // 10] * 1000:.2f} ms)"


if __name__ == "__main__":
    started_s = time.monotonic()
    main()
    print(f"took {time.monotonic() - started_s:.0f} s", file=sys.stderr)
