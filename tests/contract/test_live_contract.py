"""Schemathesis asks a live gateway all that the contract allows and much that it forbids."""

import asyncio
import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest

from service.sandbox.faults import ErrorCode, Garbage, HangUp, HttpStatus
from tests.scenes.fleet import APP, Fleet, fleet, key_of
from tests.servers import Server

pytestmark = pytest.mark.scene

HERE = Path(__file__).parent / "live"
CONTRACT = Path(__file__).parents[2] / "openapi" / "openapi.json"
CONFIGURATION, CHECKS = HERE / "schemathesis.toml", HERE / "checks.py"
SEED = "TASKGATE_SEED"
RUN_S = 60.0
CALLS = 200
"""As many calls a window for gateway and sandbox, so that a run does not spend its time in line."""
FAULTS = (
    ErrorCode(code=90104, text="time range exceeded", share=0.2),
    ErrorCode(code=60008, text="time-out", share=0.2),
    ErrorCode(code=71000, text="unknown", share=0.1),
    HttpStatus(status=502, share=0.2),
    Garbage(of="html", share=0.2),
    HangUp(share=0.2),
)


def seed() -> int:
    """Another one for each run; `TASKGATE_SEED` repeats one."""
    return int(os.environ.get(SEED) or secrets.randbelow(2**32))


def narrowed(directory: Path) -> Path:
    """The same contract, whose parameters are bounded to what the sandbox has: most requests lead to a fetch."""
    contract = json.loads(CONTRACT.read_bytes())
    bounds: dict[str, dict[str, Any]] = {
        "app": {"enum": [APP.name]},
        "since": {"enum": ["-P30D", "-P7D", "-P1D", "-P90D"]},
        "until": {"enum": ["P30D", "PT12H", "PT0S"]},
        "q": {"enum": ["spring", "sale", "news", "a", "e", "42"]},
        "offset": {"type": "integer", "minimum": 0, "maximum": 500},
    }
    for parameter in contract["paths"]["/tasks"]["get"]["parameters"]:
        if parameter.get("name") in bounds:
            parameter["schema"] = bounds[parameter["name"]]
    file = directory / "narrowed.json"
    file.write_text(json.dumps(contract))
    return file


async def schemathesis(gateways: Fleet, contract: Path, *options: str, cwd: Path, examples: int) -> str:
    """Let Schemathesis ask the first gateway; returns what it says. Raises AssertionError where it finds a fault."""
    number = seed()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", str(contract), "--url", f"http://127.0.0.1:{gateways.replicas[0].port}"),
        *("-H", f"Authorization: Bearer {key_of('c0')}", "--checks", "all", "--seed", str(number)),
        *("--max-examples", str(examples), "--request-timeout", "10", "--no-color", *options),
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(CHECKS)},
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_S):
            said = (await process.communicate())[0].decode(errors="replace")
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, f"{SEED}={number} repeats this:\n{said}"
    return said


async def test_all_is_documented(own_valkey: Server, tmp_path: Path) -> None:
    """No request brings about a 500 or an answer that the contract does not tell of, and nothing good is refused."""
    async with fleet(own_valkey, replicas=1, sandbox_calls=CALLS, budget={"calls": CALLS}) as gateways:
        said = await schemathesis(gateways, CONTRACT, cwd=tmp_path, examples=25)
        operations = sum(len(item) for item in json.loads(CONTRACT.read_bytes())["paths"].values())
        assert re.search(rf"Tested: +{operations}\b", said) is not None, said
        assert await gateways.calls() > 5, "hardly anything was fetched: nothing was shown"


async def test_troubles_are_documented(own_valkey: Server, tmp_path: Path) -> None:
    """What the upstream's faults make of an answer is in the contract, too."""
    async with fleet(own_valkey, replicas=1, sandbox_calls=CALLS, budget={"calls": CALLS}) as gateways:
        for fault in FAULTS:
            await gateways.upstream.add_fault(fault)
        chosen = ("--include-path", "/tasks", "--phases", "fuzzing", "--mode", "positive")
        await schemathesis(gateways, narrowed(tmp_path), *chosen, cwd=tmp_path, examples=60)
        log = gateways.replicas[0].log()
        for status in (422, 502):
            assert f'"status":{status}' in log, f"no {status} was brought about: nothing was shown"
