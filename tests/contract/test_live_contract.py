"""Schemathesis sends a live gateway requests that the contract allows, and many that it forbids."""

import json
import os
import re
import secrets
import sys
from pathlib import Path

import httpx
import pytest
from schemathesis import openapi
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.sandbox.faults import ErrorCode, Garbage, HangUp, HttpStatus
from tests.commands import run
from tests.contract.live.checks import no_undocumented_headers
from tests.control_client import NO_TLS
from tests.scenes.fleet import Fleet, fleet, key_of
from tests.servers import Server

pytestmark = pytest.mark.scene

HERE = Path(__file__).parent / "live"
CONTRACT = Path(__file__).parents[2] / "openapi" / "openapi.json"
CONFIGURATION, CHECKS = HERE / "schemathesis.toml", HERE / "checks.py"
SEED = "TASKGATE_SEED"
CALLS = 200
"""A call limit for gateway and sandbox high enough that a run does not spend its time in line."""
FAULTS = (
    (ErrorCode(code=90104, text="time range exceeded"), 422, "query-refused"),
    (ErrorCode(code=71000, text="unknown"), 502, "upstream-refused"),
    (HttpStatus(status=502), 502, "upstream-http-status"),
    (Garbage(of="html"), 502, "upstream-broken"),
    (HangUp(), 502, "upstream-broken"),
    (ErrorCode(code=60007, text="too often"), 503, "throttled"),
    (ErrorCode(code=70013, text="identifier"), 502, "calls-stopped"),
)
"""Faults of the upstream, and the resulting problems; the last two stop all calls to it for a while."""
CONFORMANCE = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    no_undocumented_headers,
]


def seed() -> int:
    """A different seed for each run; `TASKGATE_SEED` repeats one."""
    return int(os.environ.get(SEED) or secrets.randbelow(2**32))


async def schemathesis(gateways: Fleet, contract: Path, *options: str, cwd: Path, examples: int) -> str:
    """Run Schemathesis against the first gateway; return its output. Raise AssertionError if it finds a fault."""
    number = seed()
    print(f"{SEED}={number} repeats this run")
    return await run(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", str(contract), "--url", f"http://127.0.0.1:{gateways.replicas[0].port}"),
        *("-H", f"Authorization: Bearer {key_of('c0')}", "--checks", "all", "--seed", str(number)),
        *("--max-examples", str(examples), "--request-timeout", "10", "--no-color", *options),
        environment=os.environ | {"SCHEMATHESIS_HOOKS": str(CHECKS)},
        cwd=cwd,
    )


async def test_everything_is_documented(own_valkey: Server, tmp_path: Path) -> None:
    """No request causes a 500 or an answer that the contract does not document, and no valid one is rejected."""
    async with fleet(own_valkey, replicas=1, sandbox_calls=CALLS, budget={"calls": CALLS}) as gateways:
        said = await schemathesis(gateways, CONTRACT, cwd=tmp_path, examples=25)
        operations = sum(len(item) for item in json.loads(CONTRACT.read_bytes())["paths"].values())
        assert re.search(rf"Tested: +{operations}\b", said) is not None, said
        assert await gateways.calls() > 5, "hardly anything was fetched: nothing was shown"


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_answers_to_upstream_faults_are_documented(own_valkey: Server, accept: str) -> None:
    """The answers that faults of the upstream cause, to a page and to a stream, are in the contract, too."""
    operation = openapi.from_path(CONTRACT)["/tasks"]["GET"]
    async with (
        fleet(own_valkey, replicas=1, sandbox_calls=CALLS, budget={"calls": CALLS}) as gateways,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{gateways.replicas[0].port}", timeout=20, verify=NO_TLS
        ) as client,
    ):

        async def ask(word: str, **fields: str) -> httpx.Response:
            headers = {"Authorization": f"Bearer {key_of('c0')}", "Accept": accept, "Prefer": "wait=5"} | fields
            answer = await client.get("/tasks", params={"q": word}, headers=headers)
            operation.Case(query={"q": word}, headers=headers).validate_response(answer, checks=CONFORMANCE)
            return answer

        assert (await ask("sale")).headers["content-type"] == accept
        assert problem_of(await ask("unheard", **{"Cache-Control": "only-if-cached"})) == (504, "nothing-stored")
        for fault, status, slug in FAULTS:
            await gateways.upstream.add_fault(fault)
            assert problem_of(await ask(slug)) == (status, slug)
            await gateways.upstream.clear_faults()


def problem_of(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the last part of the type of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["type"].removeprefix("/problems/")
