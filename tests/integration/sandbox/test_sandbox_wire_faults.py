"""Each fault as it is seen from a raw socket."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.sandbox.faults import CutOff, ErrorCode, Garbage, Hang, HangUp, HttpStatus, Latency, Oversize, SandboxFault
from service.sandbox.serving import Sandbox, sandbox_upstream
from tests.control_client import control

Call = Callable[..., Awaitable[Any]]


async def _call_with(sandbox: Sandbox, call: Call, fault: SandboxFault) -> Any:
    """One call under the fault, and a good one once the fault is cleared."""
    await control(sandbox).add_fault(fault)
    assert await control(sandbox).faults() == (fault,)
    got = await call()
    await control(sandbox).clear_faults()
    assert (await call()).code == 0
    return got


async def test_any_error_code_can_be_sent(sandbox: Sandbox, call: Call) -> None:
    """Any code can be configured, and is sent with status 200 and its text."""
    got = await _call_with(sandbox, call, ErrorCode(code=60011, text="slow down"))
    assert (got.status, got.code, got.json["ErrorInfo"]) == (200, 60011, "slow down")


@pytest.mark.parametrize("status", [301, 429, 500, 502, 599])
async def test_any_http_status_can_be_sent(sandbox: Sandbox, call: Call, status: int) -> None:
    """Any status from 300 to 599 can be configured, and is sent with a page that is not JSON."""
    got = await _call_with(sandbox, call, HttpStatus(status=status))
    assert got.status == status
    assert got.body.startswith(b"<html>")


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("counted", [False, True])
async def test_the_connection_can_be_closed_without_a_byte(
    sandbox: Sandbox, call: Call, reset: bool, counted: bool
) -> None:
    """The connection closes without a byte, by FIN or RST, and the call is counted or not, as configured."""
    got = await _call_with(sandbox, call, HangUp(reset=reset, counted=counted))
    assert got.raw == b""
    assert got.reset is reset
    assert (await control(sandbox).stats()).calls == 1 + counted


async def test_a_hanging_call_ends_after_the_hold(sandbox: Sandbox, call: Call) -> None:
    """A hanging call gets no byte until the hold is over, and then the connection's end."""
    started = time.monotonic()
    got = await _call_with(sandbox, call, Hang(hold_ms=200))
    assert got.raw == b""
    assert time.monotonic() - started >= 0.2


@pytest.mark.parametrize("of", ["bytes", "html", "empty", "array", "no_code", "no_tasks", "wrong_types"])
async def test_garbage_has_status_200_and_a_correct_length(sandbox: Sandbox, call: Call, of: Any) -> None:
    """Garbage is sent with status 200 and a correct length, and does not match the documentation."""
    got = await _call_with(sandbox, call, Garbage(of=of))
    assert got.status == 200
    assert f"Content-Length: {len(got.body)}\r\n".encode() in got.head + b"\r\n"
    try:
        answer = json.loads(got.body)
    except ValueError:
        return
    assert not (isinstance(answer, dict) and "ErrorCode" in answer and isinstance(answer.get("Tasks"), list))


@pytest.mark.parametrize("of", ["no_code", "no_tasks", "wrong_types"])
async def test_garbage_is_not_mistaken_for_an_unknown_task(sandbox: Sandbox, call: Call, of: Any) -> None:
    """Garbage for `get_sched_task` is neither a task with an id nor the lack of one, which would mean an unknown id."""
    await control(sandbox).add_fault(Garbage(of=of, call="get"))
    assert (await call()).code == 0
    answer = (await call(path="/v4/timpush/get_sched_task", body={"TaskID": 1_000_000_001})).json
    assert "ErrorCode" not in answer or (answer["TaskInfo"] and "TaskID" not in answer["TaskInfo"])


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_can_be_cut_off(sandbox: Sandbox, call: Call, declared: bool) -> None:
    """An answer breaks off in the middle; its length is sent or not, as configured."""
    got = await _call_with(sandbox, call, CutOff(keep=0.5, declared=declared))
    assert (b"Content-Length" in got.head) is declared
    with pytest.raises(ValueError, match=r"Unterminated|Expecting|delimiter"):
        json.loads(got.body)
    if declared:
        assert len(got.body) == int(got.head.rpartition(b"Content-Length: ")[2].split(b"\r\n")[0]) // 2


@pytest.mark.parametrize("declared", [True, False])
async def test_an_oversized_answer_has_the_configured_length(sandbox: Sandbox, call: Call, declared: bool) -> None:
    """An answer has exactly the configured length, and is valid JSON."""
    got = await _call_with(sandbox, call, Oversize(bytes=1_000_001, declared=declared))
    assert len(got.body) == 1_000_001
    assert (b"Content-Length: 1000001" in got.head) is declared
    assert got.code == 0


async def test_latency_applies_before_and_after_the_arrival(sandbox: Sandbox, call: Call) -> None:
    """The latency of the way there passes before the arrival is counted, that of the way back after."""
    await control(sandbox).add_fault(Latency(there_ms=60, there_spread_ms=20, back_ms=90))
    started_ms = time.monotonic() * 1000
    got = await call()
    took_ms = time.monotonic() * 1000 - started_ms
    assert got.code == 0
    (arrived_ms,) = (await control(sandbox).stats()).of(sandbox.app.sdkappid).arrivals_ms
    assert arrived_ms - started_ms >= 59
    assert started_ms + took_ms - arrived_ms >= 89


async def test_a_call_on_its_way_arrives_without_its_caller(sandbox: Sandbox, call_bytes: Callable[..., bytes]) -> None:
    """A caller that hangs up while the call is on its way does not cancel it: it arrives and is counted."""
    await control(sandbox).add_fault(Latency(there_ms=1_000))
    host, _, port = sandbox.base_url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(call_bytes())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await control(sandbox).stats()).calls == 0
    async with asyncio.timeout(20):
        while (await control(sandbox).stats()).calls == 0:  # each turn of the loop is a round trip
            continue


async def test_faults_do_not_affect_the_control_route(sandbox: Sandbox, call: Call) -> None:
    """Faults never affect the control route, and a fault for one call does not affect the next."""
    await control(sandbox).add_fault(HangUp(calls=1))
    await control(sandbox).stats()
    assert (await call()).raw == b""
    assert (await call()).code == 0


async def test_closing_the_sandbox_closes_hanging_connections(call_bytes: Callable[..., bytes]) -> None:
    """A sandbox that is closed closes hanging connections at once."""
    async with sandbox_upstream() as served:
        await control(served).add_fault(Hang(hold_ms=600_000))
        host, _, port = served.base_url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(call_bytes())
        async with asyncio.timeout(20):
            while (await control(served).stats()).calls == 0:
                continue
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
