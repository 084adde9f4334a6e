"""`make bench-hit`: a hit beside other servers, in short rounds that take turns; writes the table and its machine.

Each server runs on core 0; wrk, and Valkey with it, on core 1. A ratio is the median of the ratios of neighbouring
rounds, since the machine is shared.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import msgspec

from tests.bench.hit import inside
from tests.bench.hit.load import CONNECTIONS, Measured, paced_script, wrk
from tests.bench.hit.servers import BODY, KEY
from tests.bench.machine import facts, table
from tests.ports import free_port
from tests.scenes.fleet import Fleet, fleet, key_of, path
from tests.servers import Server, eventually

ROUNDS = 8
ROUND_S = 2.0
LIMIT = 14
TARGET = path(limit=LIMIT, offset=0)
HERE = Path(__file__).parent
BENCH_PYTHON = Path(sys.prefix + "-bench") / "bin" / "python"


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A server to compare with; `port` is None if it is not available here. `ours` is the gateway's port."""

    name: str
    aim: str
    ours: int
    port: int | None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of the rounds, and of the ratios of neighbouring rounds."""

    theirs: Measured
    ours: Measured
    ratio: float


def compare(rival: Rival) -> Result:
    """Rounds against each in turn."""
    assert rival.port is not None
    pairs = []
    for _ in range(ROUNDS):
        theirs, ours = _round(rival.port), _round(rival.ours)
        pairs.append((theirs, ours))
    failed = sum(each.failed for pair in pairs for each in pair)
    if failed:
        raise SystemExit(f"{rival.name}: {failed} requests failed")
    return Result(
        theirs=_median([theirs for theirs, _ in pairs]),
        ours=_median([ours for _, ours in pairs]),
        ratio=statistics.median(ours.rate / theirs.rate for theirs, ours in pairs),
    )


def _round(port: int) -> Measured:
    return wrk(port, seconds=ROUND_S, target=TARGET, key=key_of("c0"))


def _median(measured: list[Measured]) -> Measured:
    return Measured(
        rate=statistics.median(each.rate for each in measured),
        p99_ms=statistics.median(each.p99_ms for each in measured),
        failed=0,
    )


@contextmanager
def _process(*command: str) -> Iterator[None]:
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {0})
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int) -> Callable[[], bool]:
    request = Request(f"http://127.0.0.1:{port}{TARGET}", headers={"Authorization": f"Bearer {key_of('c0')}"})

    def answers() -> bool:
        try:
            with urlopen(request, timeout=5) as answer:  # noqa: S310 - the scheme is ours
                return 5500 < len(answer.read()) < 7000
        except OSError:
            return False

    return answers


def _start(stack: ExitStack, kind: str, redis_port: int, directory: Path) -> int | None:
    """Start a server to compare with; return None if its requirements are not installed."""
    port = free_port()
    match kind:
        case "nginx":
            nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
            if nginx is None or not Path("/usr/share/lua/5.1/nginx/redis.lua").exists():
                return None
            text = (HERE / "nginx.conf.template").read_text()
            values = {"DIRECTORY": directory, "PORT": port, "REDIS_PORT": redis_port}
            for name, value in values.items():
                text = text.replace(f"@{name}@", str(value))
            (directory / "nginx.conf").write_text(text)
            command = [nginx, "-c", str(directory / "nginx.conf")]
        case "fastapi":
            if not BENCH_PYTHON.exists():
                return None
            command = [str(BENCH_PYTHON), str(HERE / "fastapi_redis.py"), str(port), str(redis_port)]
        case _:
            command = [sys.executable, "-m", "tests.bench.hit.servers", kind, str(port), str(redis_port)]
    stack.enter_context(_process(*command))
    eventually(_answers(port))
    return port


def _pin(pid: int, *, core: int) -> None:
    """Keep all threads of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


def _pinned(gateways: Fleet) -> int:
    process = gateways.replicas[0].process
    assert process is not None
    _pin(process.pid, core=0)
    return gateways.replicas[0].port


async def measure() -> tuple[list[tuple[str, ...]], tuple[float, Measured], Measured]:
    """Return all rows, and the measurements at half of the highest rate: of a hit, and of the bare app."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-hit-")))
        server = stack.enter_context(Server())
        _pin(server.pid, core=1)
        server.run("SET", KEY, BODY)
        ports = {
            kind: _start(stack, kind, server.port, directory)
            for kind in ("bare", "litestar", "fastapi", "nginx", "litestar-redis")
        }
        long = {"fresh_s": 3600.0}
        cold = long | {"memory_bytes": 0, "answers_bytes": 0}
        async with (
            fleet(server, replicas=1, cache=long) as hot,
            fleet({"url": server.url, "prefix": "cold"}, replicas=1, cache=cold) as from_redis,
            fleet({"url": server.url, "prefix": "warm"}, replicas=1, cache=long | {"answers_bytes": 0}) as from_memory,
        ):
            ours, redis_hit, memory_hit = _pinned(hot), _pinned(from_redis), _pinned(from_memory)
            for port in (ours, redis_hit, memory_hit):
                eventually(_answers(port))
            rivals = (
                Rival(name="a bare ASGI app on the same server", aim=">= 0.80", ours=ours, port=ports["bare"]),
                Rival(name="a bare Litestar handler", aim=">= 1.3", ours=ours, port=ports["litestar"]),
                Rival(name="FastAPI on uvicorn, one redis-py GET", aim=">= 6", ours=ours, port=ports["fastapi"]),
                Rival(name="nginx with Lua and Redis (Debian)", aim="near 1", ours=ours, port=ports["nginx"]),
                Rival(
                    name="a hit in Redis, not in memory, beside Litestar with one redis-py GET",
                    aim=">= 0.9",
                    ours=redis_hit,
                    port=ports["litestar-redis"],
                ),
                Rival(
                    name="a hit in memory, not replayed, beside a bare Litestar handler",
                    aim="-",
                    ours=memory_hit,
                    port=ports["litestar"],
                ),
            )
            rows = [_row(rival) for rival in rivals]
            half = _at_half(ours, directory)
            assert ports["bare"] is not None
            _, bare_half = _at_half(ports["bare"], directory)
    return rows, half, bare_half


def _row(rival: Rival) -> tuple[str, ...]:
    if rival.port is None:
        return rival.name, rival.aim, "not installed here", "", "", ""
    result = compare(rival)
    print(rival.name, f"{result.ratio:.2f}", file=sys.stderr)
    return (
        rival.name,
        rival.aim,
        f"**{result.ratio:.2f}**",
        f"{result.ours.rate:,.0f}",
        f"{result.theirs.rate:,.0f}",
        f"{result.ours.p99_ms:.1f} / {result.theirs.p99_ms:.1f} ms",
    )


def _at_half(port: int, directory: Path) -> tuple[float, Measured]:
    """Return the highest rate, and the measurements at half of it."""
    greatest = max(_round(port).rate for _ in range(3))
    script = paced_script(directory, rate=greatest / 2, connections=CONNECTIONS)
    rounds = [wrk(port, seconds=ROUND_S, target=TARGET, key=key_of("c0"), script=script) for _ in range(5)]
    return greatest, _median(rounds)


def _report(rows: list[tuple[str, ...]], half: tuple[float, Measured], bare_half: Measured) -> str:
    greatest, measured = half
    blocks, bodies, counted_mib, grown_mib = inside.of_ten_thousand_blocks()
    head = ("a hit beside", "aim", "ratio", "ours, requests/s", "theirs", "p99 at full load, ours / theirs")
    return f"""# What a hit costs

Written by `make bench-hit`. {facts()}; {_versions()}.

One page of {LIMIT} tasks, about 6 KB, {CONNECTIONS} connections, by `wrk` with one thread on core 1, where Valkey runs
too; each server alone on core 0 while it is asked. {ROUNDS} rounds of {ROUND_S:g} s each, taking turns; the ratio is
the median of the ratios of neighbouring rounds. The gateway checks the credential, counts, and writes its access log as
JSON; the others do none of that, and send no header fields but type and length. Apps that are not FastAPI's are served
by the gateway's own server, on the same event loop.

{table(head, rows)}

At about half of the greatest rate ({measured.rate:,.0f} of {greatest:,.0f} requests a second, `wrk` resting between
requests) the p99 of a hit is **{measured.p99_ms:.1f} ms** (aim: under 5 ms); that of the bare app at half of its own is
{bare_half.p99_ms:.1f} ms.

## Where the time of a hit goes

A request that the bare app answers is all server: reading it, making the scope, waking the event loop, a task, writing
the answer. A hit is spared the loop and the task (`docs/adr/0008-hits-at-once.md`), and takes instead, measured in one
process without a network:

{table(("part", "time"), inside.of_a_hit())}

## What a block of 100 tasks costs

A slice is cut from the stored bytes; nothing is decoded or encoded anew.

{table(("step", "time"), inside.of_a_block())}

## Memory

{blocks:,} blocks of 100 tasks in one replica's memory: {bodies / 2**20:,.0f} MiB of JSON, {counted_mib:,.0f} MiB as the
cache counts them against `cache.memory_bytes`, {grown_mib:,.0f} MiB by which the process grew.
"""


def _versions() -> str:
    def told(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).splitlines()[0].strip()

    code = "from importlib.metadata import version as v; print(', '.join(f'{n} {v(n)}' for n in %r.split()))"
    versions = told(sys.executable, "-c", code % "httptools uvloop litestar redis msgspec")
    if BENCH_PYTHON.exists():
        versions += ", " + told(str(BENCH_PYTHON), "-c", code % "fastapi uvicorn uvloop")
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    return versions + (", " + told(nginx, "-v").removeprefix("nginx version: ") if nginx else "")


def main() -> None:
    """Measure, and write the report to the file that is named."""
    if shutil.which("wrk") is None or (os.cpu_count() or 1) < 2:
        raise SystemExit("bench-hit needs wrk (apt-get install wrk) and two cores")
    report = _report(*asyncio.run(measure()))
    Path(sys.argv[1]).write_text(report)
    print(report)


if __name__ == "__main__":
    main()
