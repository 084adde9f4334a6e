"""The page about hits: docs/benchmarks/hit.md."""

import subprocess
import sys

import msgspec

from service.web.parameters import CACHED_MAX
from tests.bench.hit import inside
from tests.bench.hit.load import CONNECTIONS, FETCHED_EVERY, LIMIT, PAGES, Measured
from tests.bench.hit.rivals import BENCH_PYTHON, nginx_binary
from tests.bench.machine import facts, table

_NOTHING = Measured(rate=0.0, p99_ms=0.0, failed=0)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of the rounds, and of the ratios of neighbouring rounds; `ratio` is None if nothing was measured."""

    name: str
    aim: float | None
    ratio: float | None
    theirs: Measured = _NOTHING
    ours: Measured = _NOTHING


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All rows, the maximum rate of a hit, and the measurements at half of it: of a hit, and of the bare app.

    `mixed` is what the mixed load costs FastAPI with a lock, and the gateway, at the same low rate; None without it.
    """

    rows: list[Row]
    greatest: float
    half: Measured
    bare_half: Measured
    mixed: tuple[Measured, Measured] | None


def report(figures: Figures, *, picture: str, rounds: int, round_s: float) -> str:
    """Return the page."""
    head = ("a page", "aim", "ratio", "ours, requests/s", "theirs", "p99 at full load, ours / theirs")
    blocks, bodies, counted_mib, grown_mib = inside.of_ten_thousand_blocks()
    return f"""# The cost of a hit

Requests per second of one replica on one core, as a multiple of another server's on the same core:

{table(head, [_cells(row) for row in figures.rows])}

![The ratios of the table as bars; circles mark the aims]({picture})

## Capacity of a replica
{_carries(figures)}

## How this was measured
Written by `make bench-hit`. {facts()}; {_versions()}.

The request is for one page of {LIMIT} tasks, about 6 KB. `wrk` sends it on {CONNECTIONS} connections with one thread on
core 1, which it shares with Valkey and the upstream; the server under test has core 0 to itself. There are {rounds}
interleaved rounds of {round_s:g} s; a ratio is the median of the ratios of neighbouring rounds. Compare ratios: rates
depend on the shared machine. A round in which a request fails is repeated, at most twice per comparison.

*Cached* repeats the same request, which the response cache serves: without parsing it, if its head has the same bytes
as an earlier one. With a trace id per request, each is parsed. *From memory* sends `Cache-Control`, so that the page is
cut from a block in memory; the last {CACHED_MAX:,} query strings are kept parsed. In all rows, the gateway checks
the credential, counts, and writes its access log as JSON. Of the others, only nginx "with credentials" looks the caller
up, by the SHA-1 of its key; none of them counts or logs, and they send only the header fields for type and length.
Except for FastAPI's, the apps run on the gateway's own server and event loop.

The mixed load draws from {PAGES} pages, the page of rank n with a probability proportional to 1 / n. Every
{FETCHED_EVERY}th page is new in each round and must be fetched. The gateway fetches a block of 100 tasks with a signed
call to the sandbox upstream. For the others, one request pauses for 20 ms, which costs them nothing, while others for
the same page wait for its lock.

## Latency at half of the maximum rate
At about half of the maximum rate ({figures.half.rate:,.0f} of {figures.greatest:,.0f} requests a second, `wrk` pausing
between requests), the p99 of a cached response is **{figures.half.p99_ms:.1f} ms** (aim: under 5 ms); that of the bare
app at half of its own maximum is {figures.bare_half.p99_ms:.1f} ms.
{_mixed(figures)}
## Where the time of a cached response goes
Writing the response costs the same as in the bare app. A cached response needs neither a parser nor a task
([ADR 9](../adr/0009-server.md)). In their place, measured in one process without a network, it takes:

{table(("part", "time"), inside.of_a_hit())}

## What a block of 100 tasks costs
A slice is cut from the stored bytes; nothing is decoded or re-encoded.

{table(("step", "time"), inside.of_a_block())}

## Memory
{blocks:,} blocks of 100 tasks in one replica's memory: {bodies / 2**20:,.0f} MiB of JSON; {counted_mib:,.0f} MiB as the
cache counts them against `cache.memory_bytes`; the process grew by {grown_mib:,.0f} MiB.
"""


def _cells(row: Row) -> tuple[str, ...]:
    aim = "-" if row.aim is None else f"≥ {row.aim:g}"
    if row.ratio is None:
        return row.name, aim, "not installed here", "", "", ""
    return (
        row.name,
        aim,
        f"**{row.ratio:.2f}**",
        f"{row.ours.rate:,.0f}",
        f"{row.theirs.rate:,.0f}",
        f"{row.ours.p99_ms:.1f} / {row.theirs.p99_ms:.1f} ms",
    )


def _mixed(figures: Figures) -> str:
    """Return the latency of the mixed load at the same rate, if it was measured."""
    if figures.mixed is None:
        return ""
    theirs, ours = figures.mixed
    return f"""
At full load, requests that wait for a fetch determine the p99 of the mixed load. `wrk` counts such a wait once for each
request that the connection would have sent meanwhile, so of two servers with equal waits the faster one has the higher
p99. `wrk` also competes for its core with Redis and the upstream, which only the gateway calls for a fetch. At about
the same {ours.rate:,.0f} requests a second, the p99 is **{ours.p99_ms:.1f} ms**; that of FastAPI + redis-py + a lock is
{theirs.p99_ms:.1f} ms.
"""


def _carries(figures: Figures) -> str:
    """Return what the rates mean for planning replicas."""
    cached = max(row.ours.rate for row in figures.rows if row.name.startswith("cached"))
    varied = max(row.ours.rate for row in figures.rows if row.name.startswith("from memory"))
    services = _rounded(cached / 2)
    return f"""With half of one core of a machine like this one, a replica serves about **{services} requests a second**
from callers that repeat their requests, such as services that poll a page, or **{_rounded(varied / 2)}** from callers
that page through lists or vary their parameters, if the blocks are in memory. That is {services} services that each
poll one page a second, or ten times as many that poll every ten seconds. Fetches are limited by the upstream's five
calls a second for each app, however many replicas there are. Run two or three replicas to survive the loss of one, not
for speed."""


def _rounded(number: float) -> str:
    step = 10 ** (len(str(int(number))) - 2)
    return f"{int(number) // step * step:,}"


def _versions() -> str:
    def output(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return (done.stdout + done.stderr).splitlines()[0].strip()

    code = "from importlib.metadata import version as v; print(', '.join(f'{n} {v(n)}' for n in %r.split()))"
    versions = output(sys.executable, "-c", code % "httptools uvloop litestar redis msgspec")
    if BENCH_PYTHON.exists():
        versions += ", " + output(str(BENCH_PYTHON), "-c", code % "fastapi uvicorn uvloop")
    nginx = nginx_binary()
    if nginx is None:
        return versions
    return versions + ", " + output(nginx, "-v").removeprefix("nginx version: ")
