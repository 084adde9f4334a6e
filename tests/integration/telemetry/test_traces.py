"""Spans as an exporter gets them: their parents, and what they never contain."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.model.errors import WaitTooLong
from service.model.origin import NOBODY, Origin, Payer
from service.telemetry.spans import Traces
from service.upstream.call_events import UpstreamCall, UpstreamCallEnd
from service.web.settings import default_web_settings
from service.web.site import create_web
from tests.http.fake_gateway import NOW_S, FakeGateway
from tests.http.site import AUTH, feeds_over, key_callers

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Bench:
    """The HTTP side around a fake gateway, traced into memory."""

    def __init__(self, *, sends_traceparent: bool = False) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traces = Traces(provider, regions={"shop": "seoul"}, sends_traceparent=sends_traceparent)
        self.gateway = FakeGateway()
        self.web = create_web(
            self.gateway,
            key_callers(),
            default_web_settings,
            feeds=feeds_over(self.gateway),
            clock=lambda: NOW_S,
            observers=[self.traces.ended],
        )
        self._app = self.traces.traced(self.web)

    async def get(
        self, target: str = "/tasks?app=shop", headers: Mapping[str, str] | None = None, *, method: str = "GET"
    ) -> int:
        """Send a request; return the status."""
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return (await client.request(method, target, headers={**AUTH, **(headers or {})})).status_code

    def spans(self) -> list[ReadableSpan]:
        """Those that have ended."""
        return list(self.exporter.get_finished_spans())


def ids(span: ReadableSpan) -> tuple[str, str | None]:
    """Its trace, and its parent."""
    return f"{span.context.trace_id:032x}", None if span.parent is None else f"{span.parent.span_id:016x}"


def call_of(origin: Origin, *, attempt: int = 1) -> UpstreamCall:
    """A call on behalf of a request."""
    return UpstreamCall(app="shop", payer=Payer(caller="single", origin=origin, waited_s=2.0), attempt=attempt)


async def test_a_request_continues_its_callers_trace() -> None:
    """The span is a child of the caller's `traceparent`, is named after the route, and is the parent passed on."""
    bench = Bench()
    assert await bench.get("/problems/nothing?x=hunter2", {"traceparent": TRACEPARENT}) == 404
    assert await bench.get(headers={"traceparent": TRACEPARENT, "X-Request-Id": "r1"}) == 200
    first, second = bench.spans()
    assert (first.name, second.name) == ("GET /problems/{name}", "GET /tasks")
    assert ids(first) == ids(second) == (TRACE, PARENT)
    (ask,) = bench.gateway.requests
    traceparent = f"00-{TRACE}-{second.context.span_id:016x}-01"
    assert (ask.origin.request_id, ask.origin.traceparent) == ("r1", traceparent)
    assert dict(second.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/tasks",
        "http.response.status_code": 200,
        "url.path": "/tasks",
        "url.scheme": "http",
        "server.address": "gateway",
        "server.port": 80,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": 123,
        "network.protocol.version": "1.1",
        "user_agent.original": f"python-httpx/{httpx.__version__}",
        "taskgate.request_id": "r1",
        "taskgate.caller": "single",
        "taskgate.app": "shop",
        "taskgate.outcome": "hit",
        "taskgate.waited_s": 0.0,
        "taskgate.upstream_s": 0.0,
        "taskgate.calls": 0,
    }


async def test_tracestate_is_kept() -> None:
    """The span and what is done for it have the caller's `tracestate`; without a valid `traceparent` it is dropped."""
    bench = Bench(sends_traceparent=True)
    await bench.get(headers={"traceparent": TRACEPARENT, "tracestate": "a=1, b=2"})
    await bench.get(headers={"traceparent": "rubbish", "tracestate": "a=1"})
    await bench.get(headers={"traceparent": TRACEPARENT, "tracestate": "a=" + "1" * 600})
    kept, *dropped = bench.spans()
    assert kept.context.trace_state.to_header() == "a=1,b=2"
    assert [span.context.trace_state.to_header() for span in dropped] == ["", ""]
    origin, *others = [ask.origin for ask in bench.gateway.requests]
    assert (origin.tracestate, [other.tracestate for other in others]) == ("a=1,b=2", ["", ""])
    watched = bench.traces.begin(call_of(origin))
    watched.end(end_of(call_of(origin)))
    assert dict(watched.fields)["tracestate"] == "a=1,b=2"
    assert bench.spans()[-1].context.trace_state.to_header() == "a=1,b=2"


async def test_a_request_without_a_route_is_named_after_its_method() -> None:
    """No route is made up, and a method that is not HTTP's is `_OTHER`, with the original beside it."""
    bench = Bench()
    await bench.get("/nowhere/at%20all?x=hunter2")
    await bench.get("/tasks", method="BREW")
    first, second = bench.spans()
    assert (first.name, second.name) == ("GET", "HTTP")
    named = [dict(span.attributes or {}) for span in (first, second)]
    assert not any("http.route" in attributes for attributes in named)
    assert named[0]["url.path"] == "REDACTED"
    assert (named[1]["http.request.method"], named[1]["http.request.method_original"]) == ("_OTHER", "BREW")
    assert "hunter2" not in first.to_json()
    assert "nowhere" not in first.to_json()


async def test_probes_are_not_traced() -> None:
    """Probes have no span, even with a `traceparent`."""
    bench = Bench()
    for target in ("/livez", "/readyz"):
        assert await bench.get(target, {"traceparent": TRACEPARENT}) == 200
    assert bench.spans() == []


def test_input_that_never_becomes_a_request_has_a_span() -> None:
    """What the server refuses has a status, and as method `_OTHER`."""
    bench = Bench()
    for status in (400, 503):
        bench.web.refuse(status, ("192.0.2.1", 4711))
    spans_seen = [(span.name, span.status.status_code.name, dict(span.attributes or {})) for span in bench.spans()]
    assert [(name, error) for name, error, _ in spans_seen] == [("HTTP", "UNSET"), ("HTTP", "ERROR")]
    assert [attributes.get("error.type") for *_, attributes in spans_seen] == [None, "503"]
    assert spans_seen[0][2] | {"taskgate.request_id": "", "taskgate.outcome": ""} == {
        "http.request.method": "_OTHER",
        "http.response.status_code": 400,
        "url.scheme": "http",
        "url.path": "REDACTED",
        "client.address": "192.0.2.1",
        "taskgate.request_id": "",
        "taskgate.outcome": "",
        "taskgate.waited_s": 0.0,
        "taskgate.upstream_s": 0.0,
        "taskgate.calls": 0,
    }


@pytest.mark.parametrize("header", ["", "rubbish", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
async def test_an_invalid_traceparent_begins_a_new_trace(header: str) -> None:
    """An invalid `traceparent` is ignored: the request is the root of a new trace."""
    bench = Bench()
    await bench.get(headers={"traceparent": header})
    (span,) = bench.spans()
    assert ids(span)[1] is None
    assert ids(span)[0] not in (TRACE, "0" * 32)


async def test_the_callers_sampling_decision_is_followed() -> None:
    """If the caller's flags say that it is not recorded, neither is anything here, and the flags are passed on."""
    bench = Bench()
    await bench.get(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert bench.spans() == []
    assert bench.gateway.requests[0].origin.traceparent.endswith("-00")


async def test_concurrent_requests_keep_their_own_spans() -> None:
    """Of requests that overlap, each span has the outcome of its own."""
    bench = Bench()
    bench.gateway.go = asyncio.Event()
    waiting = asyncio.create_task(bench.get(headers={"X-Request-Id": "slow"}))
    while not bench.gateway.waiting:
        await asyncio.sleep(0)
    await bench.get("/nowhere", {"X-Request-Id": "quick"})
    bench.gateway.go.set()
    await waiting
    names = {(span.attributes or {})["taskgate.request_id"]: span.name for span in bench.spans()}
    assert names == {"quick": "GET", "slow": "GET /tasks"}


async def test_a_failure_of_ours_is_an_error_and_a_callers_is_not() -> None:
    """A 5xx marks the span as an error, a 401 does not."""
    bench = Bench()
    bench.gateway.error = WaitTooLong(place=1, estimate_s=1, patience_s=0)
    await bench.get()
    await bench.get(headers={"Authorization": "Bearer hunter2"})
    assert [span.status.status_code.name for span in bench.spans()] == ["ERROR", "UNSET"]
    assert [(span.attributes or {}).get("error.type") for span in bench.spans()] == ["503", None]
    said = " ".join(span.to_json() for span in bench.spans())
    assert "hunter2" not in said


def end_of(call: UpstreamCall, **values: Any) -> UpstreamCallEnd:
    """How a call ended."""
    return UpstreamCallEnd(call=call, **({"result": "ok", "code": None, "took_s": 0.1, "sent_at_s": 1.0} | values))


def test_a_call_has_its_wait_and_itself_below_the_request() -> None:
    """Line and call are children of the payer's request, one after the other; the wait has its real duration."""
    bench = Bench()
    call = call_of(Origin(request_id="r1", traceparent=TRACEPARENT), attempt=2)
    watched = bench.traces.begin(call)
    assert watched.fields == ()
    watched.sends("POST", "https://first.example/v4/timpush/list_sched_task")
    watched.sends("POST", "http://second.example:8080/v4/timpush/list_sched_task")
    watched.answered(200)
    watched.end(end_of(call, result="throttled", code=60011))
    line, upstream = bench.spans()
    assert (line.name, upstream.name) == ("line", "POST /v4/timpush/list_sched_task")
    assert ids(line) == ids(upstream) == (TRACE, PARENT)
    assert line.end_time is not None
    assert line.start_time is not None
    assert upstream.start_time is not None
    assert line.end_time - line.start_time == 2_000_000_000
    assert line.end_time <= upstream.start_time
    assert upstream.status.status_code.name == "ERROR"
    assert dict(upstream.attributes or {}) == {
        "http.request.method": "POST",
        "http.request.resend_count": 1,
        "http.response.status_code": 200,
        "error.type": "throttled",
        "url.full": "http://second.example:8080/v4/timpush/list_sched_task",
        "url.template": "/v4/timpush/list_sched_task",
        "url.scheme": "http",
        "server.address": "second.example",
        "server.port": 8080,
        "taskgate.call": "list",
        "taskgate.app": "shop",
        "taskgate.caller": "single",
        "taskgate.request_id": "r1",
        "taskgate.region": "seoul",
        "taskgate.attempt": 2,
        "taskgate.result": "throttled",
        "taskgate.code": 60011,
        "taskgate.sent": True,
    }


def test_a_renewal_is_a_separate_trace() -> None:
    """A call without a request is a root, with no wait before it."""
    bench = Bench()
    call = call_of(NOBODY)
    bench.traces.begin(call).end(end_of(call))
    (span,) = bench.spans()
    assert (span.name, ids(span)[1]) == ("POST", None)


@pytest.mark.parametrize(("result", "status", "error"), [("http_status", 502, "502"), ("timeout", None, "timeout")])
def test_a_failed_call_has_its_error(result: str, status: int | None, error: str) -> None:
    """Its error is the HTTP status if there is one, else the word of the metrics."""
    bench = Bench()
    call = call_of(NOBODY)
    watched = bench.traces.begin(call)
    if status is not None:
        watched.answered(status)
    watched.end(end_of(call, result=result))
    (span,) = bench.spans()
    attributes = dict(span.attributes or {})
    assert (attributes["error.type"], attributes.get("http.response.status_code")) == (error, status)


def test_the_trace_is_sent_to_the_vendor_only_if_configured() -> None:
    """With the setting, the sent field names the trace and the call's own span."""
    bench = Bench(sends_traceparent=True)
    call = call_of(Origin(request_id="r1", traceparent=TRACEPARENT))
    watched = bench.traces.begin(call)
    watched.end(end_of(call))
    assert watched.fields == (("traceparent", f"00-{TRACE}-{bench.spans()[-1].context.span_id:016x}-01"),)
