"""`make bench-hit`: a hit compared with other servers, in short alternating rounds; writes the page and its picture.

Each server runs on core 0; wrk, and Valkey and the upstream with it, on core 1. A ratio is the median of the ratios of
neighbouring rounds, since the machine is shared.
"""

import asyncio
import itertools
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import msgspec

from tests.bench.hit.load import (
    CALLER,
    FETCHED_EVERY,
    LOAD_CORE,
    PAGES,
    VARIED_OFFSETS,
    Load,
    Measured,
    mixed_script,
    mixed_targets,
    paced_script,
    traced_script,
    varied_script,
    varied_targets,
    wrk,
)
from tests.bench.hit.picture import Bar, picture
from tests.bench.hit.report import Figures, Row, report
from tests.bench.hit.rivals import pin, pinned, start_rivals
from tests.bench.hit.servers import BODY, KEY
from tests.scenes.fleet import fleet, get, key_of
from tests.servers import Server

ROUNDS = 8
ROUND_S = 2.0
MIXED_ROUNDS = 5
MIXED_S = 4.0
SLOW_RATE = 500.0
"""Requests a second that even the slowest server handles easily."""
AT_ONCE = 16
SPOILT_MAX = 2
"""How many rounds of a comparison may be repeated because requests failed, such as by a pause of a shared machine."""
FROM_MEMORY = "Cache-Control: max-stale=0"
"""A request with any `Cache-Control` is not served by the response cache."""


Requests = Literal["equal", "traced", "uncached", "varied", "mixed"]
"""Equal requests; with a trace id each; equal ones that the response cache does not serve; the same for many pages; the
mixed load."""


class Rival(msgspec.Struct, frozen=True, kw_only=True):
    """A server that the gateway on port `ours` is compared with; `port` is None if it is not installed here."""

    name: str
    aim: float | None = None
    ours: int
    port: int | None
    requests: Requests = "equal"


class Comparison:
    """Compares servers round by round. The pages that a mixed round has to fetch are new to both."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._mixed_rounds = itertools.count()

    async def row(self, rival: Rival) -> Row:
        """Return the result of all rounds against a rival."""
        if rival.port is None:
            return Row(name=rival.name, aim=rival.aim, ratio=None)
        if stored := _STORED.get(rival.requests):
            for port in (rival.port, rival.ours):
                await _store(port, stored())
        pairs: list[tuple[Measured, Measured]] = []
        spoilt = 0
        while len(pairs) < (MIXED_ROUNDS if rival.requests == "mixed" else ROUNDS):
            load = self._load(rival)
            pair = wrk(rival.port, load), wrk(rival.ours, load)
            if failed := sum(each.failed for each in pair):
                spoilt += 1
                if spoilt > SPOILT_MAX:
                    raise SystemExit(f"{rival.name}: {failed} requests failed")
            else:
                pairs.append(pair)
        ratio = statistics.median(ours.rate / theirs.rate for theirs, ours in pairs)
        print(rival.name, f"{ratio:.2f}", file=sys.stderr)
        return Row(
            name=rival.name,
            aim=rival.aim,
            ratio=ratio,
            theirs=_median([theirs for theirs, _ in pairs]),
            ours=_median([ours for _, ours in pairs]),
        )

    def at_half(self, port: int) -> tuple[float, Measured]:
        """Return the maximum rate of a hit, and the measurements at half of it."""
        load = Load(seconds=ROUND_S)
        greatest = max(wrk(port, load).rate for _ in range(3))
        paced = Load(seconds=ROUND_S, script=paced_script(self._directory, rate=greatest / 2))
        return greatest, _median([wrk(port, paced) for _ in range(5)])

    def mixed_at(self, rate: float, ports: tuple[int, int]) -> tuple[Measured, Measured]:
        """Return what the mixed load costs two servers if each is sent about `rate` requests a second."""
        measured: tuple[list[Measured], list[Measured]] = [], []
        for _ in range(MIXED_ROUNDS):
            script = mixed_script(self._directory, round_=next(self._mixed_rounds), rate=rate)
            for port, results in zip(ports, measured, strict=True):
                results.append(wrk(port, Load(seconds=MIXED_S, script=script)))
        return _median(measured[0]), _median(measured[1])

    def _load(self, rival: Rival) -> Load:
        match rival.requests:
            case "equal":
                return Load(seconds=ROUND_S)
            case "traced":
                return Load(seconds=ROUND_S, script=traced_script(self._directory))
            case "uncached":
                return Load(seconds=ROUND_S, field=FROM_MEMORY)
            case "varied":
                return Load(seconds=ROUND_S, field=FROM_MEMORY, script=varied_script(self._directory))
            case "mixed":
                return Load(seconds=MIXED_S, script=mixed_script(self._directory, round_=next(self._mixed_rounds)))


def _median(measured: list[Measured]) -> Measured:
    return Measured(
        rate=statistics.median(each.rate for each in measured),
        p99_ms=statistics.median(each.p99_ms for each in measured),
        failed=0,
    )


_STORED: Mapping[str, Callable[[], list[str]]] = {
    "mixed": lambda: [each for rank, each in enumerate(mixed_targets(0), start=1) if rank % FETCHED_EVERY],
    "varied": lambda: varied_targets()[::VARIED_OFFSETS],
}
"""The pages to store before the first round."""


async def _store(port: int, targets: list[str]) -> None:
    left = iter(targets)

    async def ask() -> None:
        for target in left:
            got = await get(port, target, {"Authorization": f"Bearer {key_of(CALLER)}", "Prefer": "wait=30"})
            if got.status != 200:
                raise SystemExit(f"status {got.status}: {got.body!r}")

    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))


async def measure() -> Figures:
    """Run everything."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-hit-")))
        server = stack.enter_context(Server())
        pin(server.pid, core=LOAD_CORE)
        server.run("SET", KEY, BODY)
        ports = start_rivals(stack, server.port, directory)
        fresh = {"fresh_s": 3600.0}
        no_memory = fresh | {"memory_bytes": 0, "answers_bytes": 0}
        async with (
            fleet(server, replicas=1, cache=fresh, budget={"calls": PAGES}, sandbox_calls=PAGES) as hot,
            fleet({"url": server.url, "prefix": "cold"}, replicas=1, cache=no_memory) as cold,
        ):
            ours, from_redis = pinned(hot), pinned(cold)
            comparison = Comparison(directory)
            rows = [await comparison.row(rival) for rival in rivals(ports, ours=ours, from_redis=from_redis)]
            greatest, half = comparison.at_half(ours)
            assert ports["bare"] is not None
            _, bare_half = comparison.at_half(ports["bare"])
            mixed = None
            if (locked := ports["fastapi-locked"]) is not None:
                mixed = comparison.mixed_at(SLOW_RATE, (locked, ours))
    return Figures(rows=rows, greatest=greatest, half=half, bare_half=bare_half, mixed=mixed)


def rivals(ports: dict[str, int | None], *, ours: int, from_redis: int) -> tuple[Rival, ...]:
    """Return all comparisons, in the order of the table."""

    def beside(kind: str, name: str, **changes: float | str | None) -> Rival:
        return msgspec.structs.replace(Rival(name=name, ours=ours, port=ports[kind]), **changes)

    pages = len(varied_targets())
    return (
        beside("bare", "cached, vs a bare ASGI app on the same server", aim=0.9),
        beside("bare", "cached, a trace id per request, vs a bare ASGI app", requests="traced"),
        beside("litestar", "cached, vs a bare Litestar handler", aim=1.3),
        beside("fastapi", "cached, vs FastAPI with one redis-py GET", aim=6.0),
        beside("nginx", "cached, vs nginx + Lua + Redis, without credentials", aim=0.9),
        beside("nginx-checked", "cached, vs nginx + Lua + Redis, with credentials"),
        beside("litestar", "from memory, vs a bare Litestar handler", aim=0.5, requests="uncached"),
        beside("litestar", f"from memory, {pages:,} pages, vs a bare Litestar handler", requests="varied"),
        beside("litestar-redis", "from Redis, vs Litestar with one redis-py GET", aim=0.9, ours=from_redis),
        beside("fastapi-locked", "mixed load, vs FastAPI + redis-py + a lock", requests="mixed"),
        beside("nginx-checked", "mixed load, vs nginx + Lua + Redis, with credentials", requests="mixed"),
    )


def main() -> None:
    """Measure, and write the page to the named file and its picture beside it."""
    if shutil.which("wrk") is None or (os.cpu_count() or 1) < 2:
        raise SystemExit("bench-hit needs wrk (apt-get install wrk) and two cores")
    page = Path(sys.argv[1])
    figures = asyncio.run(measure())
    bars = [Bar(name=row.name, ratio=row.ratio, aim=row.aim) for row in figures.rows if row.ratio is not None]
    drawn = page.with_suffix(".svg")
    drawn.write_text(picture(bars))
    text = report(figures, picture=drawn.name, rounds=ROUNDS, round_s=ROUND_S)
    page.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
