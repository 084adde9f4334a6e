"""`make bench-process`: one replica's time from start to ready, its memory idle and busy, its time from SIGTERM to
exit.
"""

import asyncio
import signal
import statistics
import sys
import time
from pathlib import Path

import msgspec

from tests.bench.machine import facts, processor_s, resident_mib, table
from tests.scenes.fleet import Fleet, Replica, fleet
from tests.servers import Server

STARTS = 5
QUERIES, BLOCKS, BLOCK = 100, 20, 100
REQUESTS = 20_000
AT_ONCE = 16
FAST = {"calls": 500}  # fills the caches within a minute
LONG = {"fresh_s": 3600.0, "settled_s": 3600.0}


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """One start, a second of idleness, and the end."""

    ready_s: float
    processor_s: float
    idle_mib: float
    end_s: float


async def end(replica: Replica) -> float:
    """Send SIGTERM; return how long the process took to end."""
    began_s = time.monotonic()
    replica.signal(signal.SIGTERM)
    status = await replica.ended()
    if status:
        raise SystemExit(f"status {status} after SIGTERM: {replica.log()}")
    return time.monotonic() - began_s


async def started(replica: Replica) -> Start:
    """Start it, measure it and end it."""
    began_s = time.monotonic()
    replica.start()
    await replica.ready()
    ready_s, used_s = time.monotonic() - began_s, processor_s(replica.pid)
    await asyncio.sleep(1)
    return Start(ready_s=ready_s, processor_s=used_s, idle_mib=resident_mib(replica.pid), end_s=await end(replica))


async def ask_much(at: Fleet) -> None:
    """Send REQUESTS requests for as many pages as there are blocks, each page equally often."""
    numbers = iter(range(REQUESTS))

    async def caller() -> None:
        for number in numbers:
            query, block = divmod(number % (QUERIES * BLOCKS), BLOCKS)
            got = await at.page(0, since=f"-P{30 + query}D", offset=block * BLOCK, limit=20, wait=30)
            if got.status != 200:
                raise SystemExit(f"status {got.status}: {got.body!r}")

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


async def measure() -> tuple[list[Start], float, float]:
    """The starts, the memory after the requests, and how long that replica's end took."""
    with Server() as valkey:
        async with fleet(valkey, replicas=1, budget=FAST, cache=LONG, sandbox_calls=FAST["calls"]) as at:
            (replica,) = at.replicas
            await end(replica)
            starts = [await started(replica) for _ in range(STARTS)]
            replica.start()
            await replica.ready()
            await ask_much(at)
            return starts, resident_mib(replica.pid), await end(replica)


def report(starts: list[Start], busy_mib: float, busy_end_s: float) -> str:
    """The page."""

    def described(values: list[float], unit: str, digits: int) -> str:
        return f"{statistics.median(values):.{digits}f} {unit} ({min(values):.{digits}f} to {max(values):.{digits}f})"

    rows = [
        ("from start to the first 200 of `/readyz`", described([each.ready_s for each in starts], "s", 2)),
        ("of that, CPU time", described([each.processor_s for each in starts], "s", 2)),
        ("memory, idle", described([each.idle_mib for each in starts], "MiB", 0)),
        ("memory, after the requests", f"{busy_mib:.0f} MiB"),
        ("from SIGTERM to exit, idle", described([each.end_s for each in starts], "s", 2)),
        ("from SIGTERM to exit, after the requests", f"{busy_end_s:.2f} s"),
    ]
    return f"""# Startup, memory and shutdown of a replica

Written by `make bench-process`. {facts()}.

One process, with metrics and JSON logs, with Valkey and the sandbox upstream on the same machine. Median (minimum to
maximum) of {STARTS} starts. There were {REQUESTS:,} requests, {AT_ONCE} at a time, each on a new connection, for
{QUERIES * BLOCKS:,} pages from different blocks of {BLOCK} tasks: more than fits into `cache.memory_bytes` (64 MiB) and
`cache.answers_bytes` (16 MiB), so that both are full. Memory is resident memory (RSS). On a busy machine, a start takes
longer than its CPU time.

{table(("what", "measured"), rows)}
"""


def main() -> None:
    """Measure, and write the report to the named file."""
    text = report(*asyncio.run(measure()))
    Path(sys.argv[1]).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
