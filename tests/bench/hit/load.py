"""Load by wrk on a separate core."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import msgspec

CONNECTIONS = 32
LOAD_CORE = 1

_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Requests a second, the latency that 99% kept, and answers that were none."""

    rate: float
    p99_ms: float
    failed: int


def wrk(
    port: int, *, seconds: float, target: str, key: str, connections: int = CONNECTIONS, script: Path | None = None
) -> Measured:
    """Ask for one page as fast as it goes, or as the script says."""
    command = [shutil.which("wrk") or "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {key}", *(["-s", str(script)] if script else [])]
    told = subprocess.run(
        [*command, f"http://127.0.0.1:{port}{target}"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),
    )
    rate, p99 = re.search(r"Requests/sec:\s+([\d.]+)", told.stdout), re.search(r"99%\s+([\d.]+)(us|ms|s)", told.stdout)
    assert rate
    assert p99
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told.stdout)
    socket = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told.stdout)
    failed = int(bad[1]) if bad else 0
    failed += sum(map(int, socket.groups())) if socket else 0
    return Measured(rate=float(rate[1]), p99_ms=float(p99[1]) * _UNITS[p99[2]], failed=failed)


def paced_script(directory: Path, *, rate: float, connections: int) -> Path:
    """Return a script for wrk that delays requests so that all connections together send about `rate` requests a
    second. wrk delays by whole milliseconds, so the script chooses randomly between the two nearest values.
    """
    rest_ms = connections / rate * 1000
    whole = int(rest_ms)
    script = directory / "paced.lua"
    script.write_text(
        f"function delay() if math.random() < {rest_ms - whole:.3f} then return {whole + 1} end return {whole} end\n"
    )
    return script
