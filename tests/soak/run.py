"""Mixed load with faults on whole processes: `python -m tests.soak.run MINUTES [FILE]`. Exit status 0 means that
all resources stayed flat, no second had more than 5 calls, and no response was unexpected.
"""

import asyncio
import itertools
import os
import sys
import time
from collections import Counter
from pathlib import Path

from service.sandbox.faults import CutOff, ErrorCode, Hang, HangUp, HttpStatus, Latency, SandboxFault
from tests.bench.machine import facts, table
from tests.scenes.fleet import Fleet, fleet
from tests.servers import Server
from tests.soak.flat import GROWTH, MEASURES, REST, Sample, grown, left_over, sampled, thirds
from tests.soak.load import CALLERS, Load, mixed

REPLICAS = 3
CYCLE_S = 25.0
"""Each cycle has one kind of fault, for a third of it. All eight take a third of ten minutes: its thirds are alike."""
FAULTS: tuple[tuple[str, SandboxFault | str], ...] = (
    # First, so that the data in Redis has the other seven to grow before the end.
    ("Valkey is killed and restarted empty after 1 s", "kill"),
    ("latency of 100 to 400 ms", Latency(there_ms=20, there_spread_ms=60, back_ms=100, back_spread_ms=300)),
    ("502 for every second call", HttpStatus(status=502, every=2)),
    ("Valkey hangs for 2 s", "freeze"),
    ("every fourth call throttled", ErrorCode(code=60007, every=4)),
    ("hangs for every third call", Hang(every=3, hold_ms=5000)),
    ("connection reset for every second call", HangUp(every=2, reset=True)),
    ("cut-off answers for every second call", CutOff(every=2)),
)


async def cause(gateways: Fleet, valkey: Server, fault: SandboxFault | str) -> None:
    """Cause a fault, and end it after its time."""
    if isinstance(fault, str):
        await asyncio.to_thread(valkey.freeze if fault == "freeze" else valkey.kill)
        await asyncio.sleep(2.0 if fault == "freeze" else 1.0)
        await asyncio.to_thread(valkey.thaw if fault == "freeze" else valkey.start)
        return
    await gateways.upstream.add_fault(fault)
    await asyncio.sleep(CYCLE_S / 3)
    await gateways.upstream.clear_faults()
    await gateways.upstream.add_fault(Latency(back_ms=30))


async def soak(gateways: Fleet, valkey: Server, *, for_s: float, seen: Counter[str]) -> list[Sample]:
    """Run load and faults for this long; take a sample at the end of each cycle, when its fault is over."""
    samples: list[Sample] = []
    began_s = time.monotonic()
    async with asyncio.TaskGroup() as group:
        load = [group.create_task(each) for each in mixed(Load(gateways, seen))]
        for name, fault in itertools.cycle(FAULTS):
            cycle_s = time.monotonic()
            await cause(gateways, valkey, fault)
            # Half of the samples of a cycle are within its calm end: twenty seconds apart would be too few to judge by.
            while (left_s := cycle_s + CYCLE_S - time.monotonic()) > 0:
                await asyncio.sleep(min(left_s, 2.0))
                samples.append(await sampled(gateways, valkey, at_s=time.monotonic() - began_s))
            worst = await gateways.worst_second()
            measures = ", ".join(f"{name} {value:.0f}" for name, value in samples[-1].values.items())
            print(f"{samples[-1].at_s:6.0f} s  worst second {worst}  {measures}  after: {name}", flush=True)
            if time.monotonic() - began_s >= for_s or worst > 5:
                break
        for task in load:
            task.cancel()
    return samples


async def at_rest(gateways: Fleet, valkey: Server, *, before: Sample) -> Sample:
    """Wait up to 90 s until nothing of the load is left; return the last sample."""
    end_s = time.monotonic() + 90
    while True:
        now = await sampled(gateways, valkey, at_s=0)
        if not left_over(before, now) or time.monotonic() > end_s:
            return now
        await asyncio.sleep(1)


async def main(minutes: float, file: Path | None) -> int:
    """Run it, print and write the report; return 1 if a check has failed."""
    seen: Counter[str] = Counter()
    began_s = time.monotonic()
    with Server() as valkey:
        async with fleet(
            valkey,
            replicas=REPLICAS,
            tasks=1500,
            callers=CALLERS,
            # Small and short, so that all fill up, expire and are evicted many times within the shortest run.
            cache={
                "fresh_s": 2.0,
                "settled_s": 5.0,
                "stale_while_revalidate_s": 5.0,
                "stale_if_error_s": 20.0,
                "memory_bytes": 3_000_000,
                "answers_bytes": 1_000_000,
            },
            upstream={"connect_timeout_s": 1.0, "read_timeout_s": 1.5, "call_timeout_s": 2.0},
        ) as gateways:
            await gateways.upstream.add_fault(Latency(back_ms=30))
            before = await sampled(gateways, valkey, at_s=0)
            samples = await soak(gateways, valkey, for_s=minutes * 60, seen=seen)
            after = await at_rest(gateways, valkey, before=before)
            worst, calls = await gateways.worst_second(), await gateways.calls()
            alive = all(each.process is not None and each.process.poll() is None for each in gateways.replicas)
    faults = grown(samples) + left_over(before, after)
    faults += [f"worst second {worst}"] if worst > 5 else []
    faults += [] if alive else ["a replica has ended"]
    faults += [f"{count} answers '{name}'" for name, count in seen.items() if name.startswith("unexpected")]
    rows = [_row(name, before, samples, after) for name in MEASURES]
    report = _report(time.monotonic() - began_s, rows=rows, seen=seen, worst=worst, calls=calls, faults=faults)
    print(report)
    if file is not None:
        await asyncio.to_thread(file.write_text, report)
    return 1 if faults else 0


def _row(name: str, before: Sample, samples: list[Sample], after: Sample) -> tuple[str, ...]:
    unit = MEASURES[name]
    figures = (before.values[name], *thirds(samples, name), after.values[name])
    return (f"{name} ({unit})" if unit else name, *(f"{value:,.0f}" for value in figures), f"{GROWTH[name]}")


def _report(
    took_s: float, *, rows: list[tuple[str, ...]], seen: Counter[str], worst: int, calls: int, faults: list[str]
) -> str:
    head = ("over all replicas", "before", "first third", "middle third", "last third", "at rest after", "may grow by")
    verdict = "All checks passed." if not faults else "Failed: " + "; ".join(faults) + "."
    answers = table(("outcome", "times"), [(name, f"{count:,}") for name, count in sorted(seen.items())])
    rest = ", ".join(f"{name} {allowed}" for name, allowed in REST.items())
    kinds = "\n".join(f"- {name}" for name, _ in FAULTS)
    return f"""# Mixed load with faults

One run of `make soak`, {took_s / 60:.1f} minutes including start and end. {verdict}

{facts()}

{REPLICAS} replicas, a Valkey and the sandbox upstream, all as separate processes. Load: hits, pages, streams, a rare
caller, callers that disconnect, purges. Every {CYCLE_S:.0f} s one of these faults, in turn:

{kinds}

Worst second at the upstream, by time of arrival: **{worst}**, of {calls:,} calls.

{table(head, rows)}

Each third shows the median of its samples, taken every two seconds while no fault is active. A measure is flat if the
last third's median exceeds the middle third's by at most the last column. Within 90 s after the load ends, these must
return to their initial values, within a tolerance: {rest}.
Pooled connections to Redis stay open, up to the size of the pool; blocks stay in memory until others need the space.

{answers}
"""


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    sys.exit(asyncio.run(main(float(sys.argv[1]), target)))
