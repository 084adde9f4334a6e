"""`make bench-capacity`: a gateway's use of Redis and of its own limits, by replicas, callers and load."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import redis

from tests.bench.machine import facts, processor_s, table
from tests.scenes.fleet import Fleet, fleet
from tests.servers import Server

SECONDS = 12
BLOCKS = 40
CONNECTIONS = 200
HITS = 4000
WIDTHS = ((1, 1), (1, 40), (2, 40), (4, 40))
"""Replicas and callers of a backlog."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Redis's work in a second."""

    replicas: int
    callers: int
    commands: float
    calls: float


def commands(server: redis.Redis) -> int:
    """Return the number of commands that Redis has run, including those of scripts; ours are one."""
    stats = server.info("commandstats")
    return sum(each["calls"] for name, each in stats.items() if name != "cmdstat_info")  # type: ignore[union-attr]


@asynccontextmanager
async def backlog(at: Fleet, *, callers: int) -> AsyncIterator[None]:
    """Callers on all replicas that request more blocks than there are turns."""

    async def caller(number: int) -> None:
        for page in range(10_000):
            await at.page(number % len(at.replicas), caller=f"c{number}", q=f"{number} {page}", wait=300)

    tasks = [asyncio.create_task(caller(number)) for number in range(max(callers, len(at.replicas)))]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def load(replicas: int, callers: int) -> Load:
    """Measure Redis' work under a backlog; without callers, of idle replicas."""
    with Server() as valkey, redis.Redis(port=valkey.port) as server:
        async with fleet(valkey, replicas=replicas, budget={"wait_max_s": 300.0}) as at:
            if not callers:
                return await rate(at, server, replicas=replicas, callers=0)
            async with backlog(at, callers=callers):
                await asyncio.sleep(2)
                return await rate(at, server, replicas=replicas, callers=callers)


async def rate(at: Fleet, server: redis.Redis, *, replicas: int, callers: int) -> Load:
    """Count commands for SECONDS."""
    began_s, before, calls = time.monotonic(), commands(server), await at.calls()
    await asyncio.sleep(SECONDS)
    took_s = time.monotonic() - began_s
    return Load(
        replicas=replicas,
        callers=callers,
        commands=(commands(server) - before - 1) / took_s,
        calls=(await at.calls() - calls) / took_s,
    )


async def memory() -> tuple[float, float]:
    """Return KiB of Redis' memory for a block of 100 tasks, and KiB of all else for an app with 40 callers."""
    with Server() as valkey, redis.Redis(port=valkey.port) as server:
        async with fleet(valkey, replicas=1, budget={"calls": 100}, sandbox_calls=100) as at:
            for number in range(BLOCKS):
                days, block = divmod(number, 20)
                got = await at.page(0, caller=f"c{number}", offset=block * 100, since=f"-P{30 + days}D")
                if got.status != 200:
                    raise SystemExit(f"status {got.status}: {got.body!r}")
            await asyncio.sleep(11)  # usage is written every ten seconds
            sizes = {key: server.memory_usage(key) or 0 for key in server.scan_iter()}
    blocks = [size for size in sizes.values() if size > 10_000]
    rest = sum(size for size in sizes.values() if size <= 10_000)
    return sum(blocks) / len(blocks) / 1024, rest / 1024


async def process() -> tuple[int, int, float]:
    """Return open files of an idle replica, those of one with CONNECTIONS more, and processor time for a hit (ms)."""
    with Server() as valkey:
        async with fleet(valkey, replicas=1) as at:
            (replica,) = at.replicas
            idle = files(replica.pid)
            pairs = [await asyncio.open_connection("127.0.0.1", replica.port) for _ in range(CONNECTIONS)]
            await asyncio.sleep(0.5)
            busy = files(replica.pid)
            for _, writer in pairs:
                writer.close()
            await at.page(0, q="hit")
            used_s = processor_s(replica.pid)
            for _ in range(HITS):
                await at.page(0, q="hit")
            return idle, busy, (processor_s(replica.pid) - used_s) / HITS * 1000


def files(pid: int) -> int:
    """Return the number of open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


async def report() -> str:
    """Measure everything; return the page."""
    loads = [await load(2, 0)] + [await load(*width) for width in WIDTHS]
    block_kib, rest_kib = await memory()
    idle, busy, hit_ms = await process()
    rows = [
        (str(each.replicas), str(each.callers or "none"), f"{each.commands:.0f}", f"{each.calls:.1f}") for each in loads
    ]
    return f"""# Capacity planning

Written by `make bench-capacity`. {facts()}.

## Redis, for each app
Commands that Redis runs per second, including those within scripts, while demand exceeds the budget (five calls a
second), each measured for {SECONDS} s. An app without waiting requests costs next to nothing.

{table(("replicas", "waiting callers", "commands a second", "calls a second"), rows)}

| memory of Redis | KiB |
|---|---|
| a block of 100 tasks | {block_kib:.0f} |
| everything else of an app with 40 callers, after a minute | {rest_kib:.0f} |

## A replica

| what | measured |
|---|---|
| open files, idle | {idle} |
| open files, with {CONNECTIONS} connections from callers | {busy} |
| CPU time for a hit on a new connection | {hit_ms:.2f} ms |
"""


def main() -> None:
    """Measure, and write the report to the named file."""
    text = asyncio.run(report())
    Path(sys.argv[1]).write_text(text)
    print(text)


if __name__ == "__main__":
    main()
