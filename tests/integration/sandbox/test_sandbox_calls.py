"""The sandbox upstream over real sockets: valid calls, refusals, the limit, and the control route."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.sandbox.errors import PortTaken, SandboxError
from service.sandbox.serving import Sandbox, sandbox_upstream
from service.sandbox.tasks import SandboxTask
from service.sandbox.upstream import SandboxClock, SandboxOptions
from tests.control_client import control
from tests.integration.sandbox.conftest import exchange

Call = Callable[..., Awaitable[Any]]
GET = "/v4/timpush/get_sched_task"


async def test_a_valid_call_gets_a_page(call: Call) -> None:
    """A correctly signed call gets a page: sorted, cut to Want, with the Total before the cut."""
    got = await call()
    assert got.status == 200
    assert got.json["ActionStatus"] == "OK"
    assert got.code == 0
    tasks = got.json["Tasks"]
    assert len(tasks) == 20 < got.json["Total"]
    scheduled = [task["SchedAt"] for task in tasks]
    assert scheduled == sorted(scheduled, reverse=True)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"method": "GET"}, 60009),
        ({"path": "/v4/timpush/other"}, 60009),
        ({"path": "/"}, 60009),
        ({"url": {"contenttype": "xml"}}, 60002),
        ({"url": {"random": 4294967296}}, 60002),
        ({"url": {"random": -1}}, 60002),
        ({"url": {"random": ""}}, 60002),
        ({"url": {"identifier": ""}}, 60004),
        ({"url": {"sdkappid": ""}}, 60012),
        ({"url": {"sdkappid": "14e8"}}, 60012),
        ({"url": {"sdkappid": 1400000009}}, 70020),
        ({"url": {"sdkappid": 1400000002}}, 70014),
        ({"url": {"identifier": "someone"}}, 70013),
        ({"url": {"usersig": ""}}, 70002),
        ({"url": {"usersig": "x"}}, 70003),
        ({"path": "/v4/timpush/list_sched_task?random=1"}, 60002),
        ({"body": b"no json"}, 60003),
        ({"body": {"Sdkappid": 1400000002}}, 90104),
        ({"body": {"Want": 0}}, 90104),
    ],
    ids=str,
)
async def test_refusals_come_with_status_200(call: Call, changed: dict[str, Any], code: int) -> None:
    """Every refusal has HTTP status 200, FAIL, the fault's code and a text."""
    got = await call(**changed)
    assert got.status == 200
    assert got.json["ActionStatus"] == "FAIL"
    assert got.code == code
    assert got.json["ErrorInfo"]


@pytest.mark.parametrize(
    ("name", "code"),
    [("contenttype", 60002), ("random", 60002), ("identifier", 60004), ("sdkappid", 60012), ("usersig", 70002)],
)
async def test_each_parameter_is_required(call: Call, missing: object, name: str, code: int) -> None:
    """Each parameter of the URL is required."""
    assert (await call(url={name: missing})).code == code


async def test_a_valid_signature_of_another_account_is_refused(
    call: Call, sandbox: Sandbox, usersig: Callable[..., str]
) -> None:
    """A signature made with the app's key for another account is refused with 60010."""
    signed = usersig(identifier="user1", sdkappid=sandbox.app.sdkappid, key=sandbox.app.key, time_s=2_000_000_000)
    assert (await call(url={"identifier": "user1", "usersig": signed})).code == 60010


async def test_the_sixth_call_within_a_second_is_refused(sandbox: Sandbox, call: Call) -> None:
    """Five calls in a sliding second pass, more are refused with 60018, are counted, and other apps are not touched."""
    got = await asyncio.gather(*(call() for _ in range(7)))
    assert sorted(one.code for one in got) == [0] * 5 + [60018] * 2
    stats = await control(sandbox).stats(sdkappid=sandbox.app.sdkappid)
    assert (stats.calls, stats.refused, stats.worst_window) == (7, 2, 7)
    assert len(stats.of(sandbox.app.sdkappid).arrivals_ms) == 7
    assert (await control(sandbox).stats(window_ms=0.000001)).worst_window == 1
    assert (await call(url={"sdkappid": 1400000002})).code == 70014
    await control(sandbox).reset_stats()
    assert (await call()).code == 0
    assert (await control(sandbox).stats()).calls == 1


async def test_the_window_slides_with_the_clock(sandbox: Sandbox, call: Call) -> None:
    """On a clock moved by the test, a sixth call is refused until a whole window has passed since the first."""
    at_ms = [0.0, 0, 0, 0, 500, 999, 1000, 1499, 1500]
    codes = []
    for now_ms in at_ms:
        sandbox.upstream.clock = SandboxClock(monotonic_ms=lambda now_ms=now_ms: now_ms)
        codes.append((await call()).code)
    assert codes == [0, 0, 0, 0, 0, 60018, 0, 0, 0]


async def test_strays_are_counted_separately(sandbox: Sandbox, call: Call) -> None:
    """A call that names no app of the sandbox, or no call, is counted as a stray and spends no app's limit."""
    await call(url={"sdkappid": 7})
    await call(path="/v4/timpush/add_sched_task")
    stats = await control(sandbox).stats()
    assert (stats.calls, stats.strays, stats.worst_window) == (2, 2, 0)


async def test_a_task_is_returned_by_its_id_as_listed(sandbox: Sandbox, call: Call) -> None:
    """A task that a page lists is answered by its id as the page lists it."""
    listed = (await call()).json["Tasks"][3]
    got = await call(path=GET, body={"TaskID": listed["TaskID"]})
    assert (got.status, got.json) == (
        200,
        {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "TaskInfo": listed},
    )


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"body": {"TaskID": 7}}, 90106),
        ({"body": {"TaskID": "1000000001"}}, 90104),
        ({"body": {"TaskID": 2**63}}, 90104),
        ({"body": {}}, 90104),
        ({"body": {"TaskID": 1_000_000_001, "Sdkappid": 1_400_000_002}}, 90104),
        ({"body": b"[]"}, 60003),
        ({"body": {"TaskID": 1_000_000_001}, "url": {"usersig": ""}}, 70002),
        ({"body": {"TaskID": 1_000_000_001}, "method": "GET"}, 60009),
    ],
    ids=str,
)
async def test_refusals_of_a_task_have_their_codes(call: Call, changed: dict[str, Any], code: int) -> None:
    """An unknown id, a malformed body, and a wrong signature have their codes."""
    got = await call(path=GET, **changed)
    assert (got.status, got.json["ActionStatus"], got.code) == (200, "FAIL", code)


async def test_an_unknown_task_may_be_a_success(call_bytes: Callable[..., bytes]) -> None:
    """Without a code for it, an unknown id is answered with success and no task."""
    async with sandbox_upstream(SandboxOptions(unknown_task_code=None)) as served:
        got = await exchange(served.base_url, call_bytes(path=GET, body={"TaskID": 7}))
    assert got.json == {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0}


async def test_each_call_has_a_separate_limit(sandbox: Sandbox, call: Call) -> None:
    """Five lists and five tasks pass in the same second, the sixth of either is refused; each is counted apart."""
    sandbox.upstream.clock = SandboxClock(monotonic_ms=lambda: 0.0)
    lists = [(await call()).code for _ in range(6)]
    tasks = [(await call(path=GET, body={"TaskID": 1_000_000_001})).code for _ in range(7)]
    assert (lists, tasks) == ([0] * 5 + [60018], [0] * 5 + [60018] * 2)
    stats = await control(sandbox).stats(sdkappid=sandbox.app.sdkappid)
    assert (stats.calls, stats.refused, stats.worst_window) == (13, 3, 7)
    assert stats.of(sandbox.app.sdkappid).calls == 6
    assert (stats.of(sandbox.app.sdkappid, "get").calls, stats.of(sandbox.app.sdkappid, "get").refused) == (7, 2)
    await control(sandbox).reset_stats()
    assert (await call(path=GET, body={"TaskID": 1_000_000_001})).code == 0


async def test_connections_are_kept(sandbox: Sandbox, call_bytes: Callable[..., bytes], send: Call) -> None:
    """Several calls go over one connection, even if sent at once, and are answered in order."""
    both = call_bytes(close=False) + call_bytes(close=False, body={"Want": 0}) + call_bytes()
    got = await send(both)
    assert got.raw.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert got.raw.index(b'"OK"') < got.raw.index(b"90104") < got.raw.rindex(b'"OK"')


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    ],
)
async def test_malformed_requests_are_refused(send: Call, request_bytes: bytes, status: int) -> None:
    """Anything but HTTP/1.1 with a length, or of excessive length, gets the appropriate status, and the connection
    is closed."""
    assert (await send(request_bytes)).status == status


async def test_tasks_can_be_changed(sandbox: Sandbox, call: Call) -> None:
    """Tasks added, removed and resized through the control route show in the next page."""
    number = sandbox.app.sdkappid
    assert (await control(sandbox).resize_tasks(number, 0)).tasks == 0
    assert (await call()).json["Total"] == 0
    now_s = int(sandbox.upstream.clock.now_s())
    task = SandboxTask(id=4, created_s=now_s - 9, scheduled_s=now_s + 9, title="hello", description="there")
    assert (await control(sandbox).add_tasks(number, [task])).tasks == 1
    (listed,) = (await call(body={"Keyword": "HELL"})).json["Tasks"]
    assert (listed["TaskID"], listed["Status"], listed["Content"]["From_Account"]) == (4, "pending", "administrator")
    assert (await control(sandbox).remove_tasks(number, [4, 5])).tasks == 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/sandbox/faults", {"kind": "status", "satus": 1}, 400, "satus"),
        ("PUT", "/sandbox/tasks", {"sdkappid": 1400000001, "total": 1, "foo": 2}, 400, "foo"),
        ("PUT", "/sandbox/tasks", {"sdkappid": 7, "total": 1}, 400, "7"),
        ("PUT", "/sandbox/tasks", {"sdkappid": 1400000001, "total": 100001}, 400, "total"),
        ("GET", "/sandbox/stats?app=1", {}, 400, "app"),
        ("GET", "/sandbox/stats?sdkappid=x", {}, 400, "x"),
        ("PATCH", "/sandbox/faults", {}, 405, "GET, POST, DELETE"),
        ("GET", "/sandbox/", {}, 404, "/sandbox/faults"),
    ],
)
async def test_control_refuses_by_name(
    send: Call, method: str, path: str, body: object, *, status: int, text: str
) -> None:
    """A control request with an unknown field, app, parameter, method or path is refused with a text that names it."""
    sent = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(sent)}\r\n\r\n".encode()
    got = await send(head + sent)
    assert got.status == status
    assert text in got.json["error"]


async def test_moments_outside_the_calendar_are_refused(sandbox: Sandbox) -> None:
    """A task whose time can't be written is refused when it is added, not when it is listed."""
    task = SandboxTask(id=4, created_s=1, scheduled_s=10**15, title="t", description="d")
    with pytest.raises(SandboxError, match="scheduled_s"):
        await control(sandbox).add_tasks(sandbox.app.sdkappid, [task])


async def test_a_taken_port_is_reported(sandbox: Sandbox) -> None:
    """A second sandbox on the same port is refused with PortTaken."""
    port = int(sandbox.base_url.rpartition(":")[2])
    with pytest.raises(PortTaken, match=f"port {port}"):
        async with sandbox_upstream(port=port):
            pass
