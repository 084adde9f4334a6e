"""One call of `get_sched_task` against a real socket server; most rules are those of lists, tested beside this."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from service.model.calls import CallKind
from service.model.errors import (
    CallsStopped,
    QueryRefused,
    Throttled,
    UpstreamBroken,
    UpstreamHTTPStatus,
    UpstreamRefused,
)
from service.upstream.verdicts import RetryVerdict, verdict
from tests.integration.upstream.bench import FOUND, TASK, Bench, RecordedTrace, pages, refusals

FOUND_BODY = json.dumps(FOUND).encode()


async def test_a_call_is_one_post_and_returns_the_task(bench: Bench) -> None:
    """One call is one POST as the upstream's page describes it, after `before_send`, and returns the task."""
    bench.upstream.scene = pages(FOUND_BODY)
    trace = RecordedTrace(("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
    task = await bench.get_task(trace=trace)
    assert task is not None
    assert (task.id, task.title, bench.begun) == (1, "t", 1)
    [request] = bench.upstream.requests
    assert request.startswith(b"POST /v4/timpush/get_sched_task?")
    query = parse_qs(urlsplit(request.split(b" ")[1].decode()).query)
    assert query["usersig"] == [bench.signer.current(bench.wall_s).text]
    assert json.loads(request.split(b"\r\n\r\n", 1)[1]) == {"Sdkappid": 88888888, "TaskID": 1}
    assert f"\r\ntraceparent: {trace.fields[0][1]}\r\n".encode() in request
    assert trace.steps == [f"POST {bench.base}/v4/timpush/get_sched_task", "200"]


async def test_lists_and_tasks_share_signature_and_connection(bench: Bench) -> None:
    """Calls of both kinds use one signature and one connection."""
    await bench.fetch()
    assert await bench.get_task() is None
    lists, tasks = (parse_qs(urlsplit(request.split(b" ")[1].decode()).query) for request in bench.upstream.requests)
    assert lists["usersig"] == tasks["usersig"]
    assert bench.upstream.connections == 1


@pytest.mark.parametrize("code", [90106, 90107])
async def test_a_configured_code_means_an_unknown_task(bench: Bench, code: int) -> None:
    """A code that is configured for unknown ids is no error."""
    bench.use(unknown_task_codes=(90106, 90107))
    bench.upstream.scene = refusals(code)
    assert await bench.get_task() is None
    assert bench.client.stopped(bench.app, CallKind.GET) is None


async def test_codes_have_the_same_errors_as_for_lists(bench: Bench) -> None:
    """Codes have the errors and verdicts that they have for lists."""
    bench.upstream.scene = refusals(60018, 90104)
    with pytest.raises(Throttled) as throttled:
        await bench.get_task()
    assert verdict(throttled.value) is RetryVerdict.AFTER_PAUSE
    with pytest.raises(QueryRefused):
        await bench.get_task()


async def test_a_signature_refused_as_expired_is_replaced_for_both(bench: Bench) -> None:
    """After 70001 the next call, of either kind, gets a new signature."""
    bench.upstream.scene = refusals(70001)
    before = bench.signer.current(bench.wall_s).number
    with pytest.raises(UpstreamRefused) as caught:
        await bench.get_task()
    assert verdict(caught.value) is RetryVerdict.ONCE_MORE
    await bench.fetch()
    assert bench.signer.current(bench.wall_s).number == before + 1


@pytest.mark.parametrize(("code", "stops_lists"), [(60020, False), (70009, True)])
async def test_a_missing_package_stops_only_this_call(bench: Bench, code: int, stops_lists: bool) -> None:
    """A package without this call stops this call alone; a wrong key stops lists, too."""
    bench.upstream.scene = refusals(code)
    with pytest.raises(CallsStopped):
        await bench.get_task()
    with pytest.raises(CallsStopped) as caught:
        await bench.get_task()
    assert not caught.value.sent
    assert (bench.client.stopped(bench.app) is not None) is stops_lists
    assert len(bench.upstream.requests) == 1


@pytest.mark.parametrize("changed", [{"TaskID": 2}, {"Sdkappid": 1}])
async def test_a_different_task_is_an_error(bench: Bench, changed: dict[str, int]) -> None:
    """Another task, or a task of another app, is an error that would repeat."""
    bench.upstream.scene = pages(json.dumps({**FOUND, "TaskInfo": {**TASK, **changed}}).encode())
    with pytest.raises(UpstreamBroken) as caught:
        await bench.get_task()
    assert caught.value.repeats
    bench.assert_nothing_leaks()


async def test_other_http_statuses_are_errors(bench: Bench) -> None:
    """An HTTP status other than 200 is an error, as for lists."""
    bench.upstream.scene = pages(b"busy", status="502 Bad Gateway")
    with pytest.raises(UpstreamHTTPStatus):
        await bench.get_task()


async def test_the_signature_is_not_passed_on(bench: Bench) -> None:
    """A refusal that echoes the signature is passed on without it."""
    bench.upstream.scene = refusals(12345, text=f"bad usersig {bench.signer.current(bench.wall_s).text}")
    with pytest.raises(UpstreamRefused, match=r"bad usersig \[signature\]"):
        await bench.get_task()


async def test_odd_fields_are_counted(bench: Bench) -> None:
    """A field that can't be read is null, and counted for the app."""
    bench.upstream.scene = pages(json.dumps({**FOUND, "TaskInfo": {**TASK, "Title": 7}}).encode())
    task = await bench.get_task()
    assert task is not None
    assert task.title is None
    assert bench.client.odd["shop", "value"] == 1
