"""Load by wrk on a separate core."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec

from tests.scenes.fleet import key_of, path

CALLER = "c0"
CONNECTIONS = 32
LIMIT = 14
LOAD_CORE = 1
TARGET = path(limit=LIMIT, offset=0)

PAGES = 500
FETCHED_EVERY = 5
"""Every fifth page of the mixed load is not stored when a round begins."""

VARIED_LISTS = 50
VARIED_OFFSETS = 86
"""Offsets of pages within the first block."""

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Requests a second, the latency that 99% kept, and failed requests."""

    rate: float
    p99_ms: float
    failed: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """The requests: one page, with an additional field, or those of a script."""

    seconds: float
    field: str | None = None
    script: Path | None = None


def wrk(port: int, load: Load) -> Measured:
    """Send requests as fast as they are answered, or as the script determines."""
    command = [shutil.which("wrk") or "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{load.seconds:g}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {key_of(CALLER)}"]
    command += ["-H", load.field] if load.field else []
    command += ["-s", str(load.script)] if load.script else []
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{TARGET}"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout), re.search(r"99%\s+([\d.]+)(us|ms|s)", done.stdout)
    assert rate
    assert p99
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    socket = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, socket.groups())) if socket else 0
    return Measured(rate=float(rate[1]), p99_ms=float(p99[1]) * _UNITS[p99[2]], failed=failed)


def paced_script(directory: Path, *, rate: float) -> Path:
    """Return a script that sends about `rate` requests a second."""
    script = directory / "paced.lua"
    script.write_text(_delay(rate))
    return script


def _delay(rate: float) -> str:
    """Return a function that pauses between requests, so that all connections together send about `rate` a second.

    wrk pauses for whole milliseconds: the function draws between the two nearest.
    """
    pause_ms = CONNECTIONS / rate * 1000
    whole = int(pause_ms)
    return (
        f"function delay() if math.random() < {pause_ms - whole:.3f} then return {whole + 1} end return {whole} end\n"
    )


def traced_script(directory: Path) -> Path:
    """Return a script whose requests differ in their trace ids."""
    script = directory / "traced.lua"
    script.write_text(
        """local count = 0
function request()
  count = count + 1
  wrk.headers["traceparent"] = string.format("00-4bf92f3577b34da6%016x-00f067aa0ba902b7-01", count)
  return wrk.format("GET")
end
"""
    )
    return script


def varied_targets() -> list[str]:
    """Return the addresses of different pages, list by list."""
    return [
        path(limit=LIMIT, offset=offset, since=f"-P20DT{number}S")
        for number in range(1, VARIED_LISTS + 1)
        for offset in range(VARIED_OFFSETS)
    ]


def varied_script(directory: Path) -> Path:
    """Return a script that draws from the different pages, each with the same probability."""
    script = directory / "varied.lua"
    script.write_text(
        f"""local targets = {{{_listed(varied_targets())}}}
function request() return wrk.format("GET", targets[math.random(#targets)]) end
"""
    )
    return script


def _listed(targets: list[str]) -> str:
    return ",".join(f'"{target}"' for target in targets)


def mixed_targets(round_: int) -> list[str]:
    """Return the pages of a round by popularity; those that must be fetched are new in each round."""
    return [
        path(limit=LIMIT, offset=0, since=f"-P30DT{rank if rank % FETCHED_EVERY else rank + PAGES * (round_ + 1)}S")
        for rank in range(1, PAGES + 1)
    ]


def mixed_script(directory: Path, *, round_: int, rate: float | None = None) -> Path:
    """Return a script that draws from the pages of a round, each with a probability of 1 / rank (Zipf).

    It sends about `rate` requests a second if given, else as many as are answered.
    """
    script = directory / f"mixed-{round_}.lua"
    script.write_text(
        f"""local targets, requests, reached, sum = {{{_listed(mixed_targets(round_))}}}, {{}}, {{}}, 0
function init()
  for rank, target in ipairs(targets) do
    sum = sum + 1 / rank
    reached[rank], requests[rank] = sum, wrk.format("GET", target)
  end
end
function request()
  local drawn, low, high = math.random() * sum, 1, #targets
  while low < high do
    local middle = math.floor((low + high) / 2)
    if reached[middle] < drawn then low = middle + 1 else high = middle end
  end
  return requests[low]
end
{"" if rate is None else _delay(rate)}"""
    )
    return script
