"""Spans as an exporter gets them: their parents, and what they never contain."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.budget.line.jobs import Payer
from service.gateway.call_events import Call, CallEnd
from service.model.errors import WaitTooLong
from service.model.origin import NOBODY, Origin
from service.telemetry.spans import Traces
from service.web.settings import default_web_settings
from service.web.site import create_web
from tests.http.fake_gateway import AUTH, NOW_S, FakeGateway, feeds_over, key_callers

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
        web = create_web(
            self.gateway,
            key_callers(),
            default_web_settings,
            feeds=feeds_over(self.gateway),
            clock=lambda: NOW_S,
            observers=[self.traces.ended],
        )
        self._app = self.traces.edge(web)

    async def get(self, target: str = "/tasks?app=shop", headers: Mapping[str, str] | None = None) -> int:
        """Ask; returns the status."""
        transport = httpx.ASGITransport(app=self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return (await client.get(target, headers={**AUTH, **(headers or {})})).status_code

    def spans(self) -> list[ReadableSpan]:
        """Those that have ended."""
        return list(self.exporter.get_finished_spans())


def ids(span: ReadableSpan) -> tuple[str, str | None]:
    """Its trace, and its parent."""
    return f"{span.context.trace_id:032x}", None if span.parent is None else f"{span.parent.span_id:016x}"


def call_of(origin: Origin) -> Call:
    """A call on behalf of a request."""
    return Call(app="shop", payer=Payer(caller="single", origin=origin, waited_s=2.0), attempt=1)


async def test_a_request_goes_on_with_its_callers_trace() -> None:
    """The span is a child of the caller's `traceparent`, is named after the route, and is the parent passed on."""
    bench = Bench()
    assert await bench.get("/problems/nothing?x=hunter2", {"traceparent": TRACEPARENT}) == 404
    assert await bench.get(headers={"traceparent": TRACEPARENT, "X-Request-Id": "r1"}) == 200
    first, second = bench.spans()
    assert (first.name, second.name) == ("GET /problems/{name}", "GET /tasks")
    assert ids(first) == ids(second) == (TRACE, PARENT)
    (ask,) = bench.gateway.asks
    traceparent = f"00-{TRACE}-{second.context.span_id:016x}-01"
    assert (ask.origin.request_id, ask.origin.traceparent) == ("r1", traceparent)
    assert dict(second.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/tasks",
        "http.response.status_code": 200,
        "taskgate.request_id": "r1",
        "taskgate.caller": "single",
        "taskgate.app": "shop",
        "taskgate.outcome": "hit",
        "taskgate.waited_s": 0.0,
        "taskgate.upstream_s": 0.0,
    }


@pytest.mark.parametrize("header", ["", "rubbish", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
async def test_a_traceparent_that_is_none_begins_a_new_trace(header: str) -> None:
    """An invalid `traceparent` is ignored: the request is the root of a new trace."""
    bench = Bench()
    await bench.get(headers={"traceparent": header})
    (span,) = bench.spans()
    assert ids(span)[1] is None
    assert ids(span)[0] not in (TRACE, "0" * 32)


async def test_a_caller_that_does_not_sample_is_obeyed() -> None:
    """If the caller's flags say that it is not recorded, neither is anything here, and the flags are passed on."""
    bench = Bench()
    await bench.get(headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert bench.spans() == []
    assert bench.gateway.asks[0].origin.traceparent.endswith("-00")


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
    told = {(span.attributes or {})["taskgate.request_id"]: span.name for span in bench.spans()}
    assert told == {"quick": "GET unrouted", "slow": "GET /tasks"}


async def test_a_failure_of_ours_is_an_error_and_a_callers_is_not() -> None:
    """A 5xx marks the span as an error, a 401 does not."""
    bench = Bench()
    bench.gateway.error = WaitTooLong(place=1, estimate_s=1, patience_s=0)
    await bench.get()
    await bench.get(headers={"Authorization": "Bearer hunter2"})
    assert [span.status.status_code.name for span in bench.spans()] == ["ERROR", "UNSET"]
    said = " ".join(span.to_json() for span in bench.spans())
    assert "hunter2" not in said


def end_of(call: Call, **values: Any) -> CallEnd:
    """How a call ended."""
    return CallEnd(call=call, **({"result": "ok", "code": None, "took_s": 0.1, "sent_at_s": 1.0} | values))


def test_a_call_has_its_wait_and_itself_below_the_request() -> None:
    """Line and call are children of the payer's request, one after the other; the wait has its real duration."""
    bench = Bench()
    call = call_of(Origin(request_id="r1", traceparent=TRACEPARENT))
    watched = bench.traces.begin(call)
    assert watched.traceparent == ""
    watched.end(end_of(call, result="throttled", code=60011))
    line, upstream = bench.spans()
    assert (line.name, upstream.name) == ("line", "upstream")
    assert ids(line) == ids(upstream) == (TRACE, PARENT)
    assert line.end_time is not None
    assert line.start_time is not None
    assert upstream.start_time is not None
    assert line.end_time - line.start_time == 2_000_000_000
    assert line.end_time <= upstream.start_time
    assert upstream.status.status_code.name == "ERROR"
    assert dict(upstream.attributes or {}) == {
        "taskgate.app": "shop",
        "taskgate.caller": "single",
        "taskgate.request_id": "r1",
        "taskgate.region": "seoul",
        "taskgate.attempt": 1,
        "taskgate.result": "throttled",
        "taskgate.code": 60011,
        "taskgate.sent": True,
    }


def test_a_renewal_is_a_trace_of_its_own() -> None:
    """A call without a request is a root, with no wait before it."""
    bench = Bench()
    call = call_of(NOBODY)
    bench.traces.begin(call).end(end_of(call))
    (span,) = bench.spans()
    assert (span.name, ids(span)[1]) == ("upstream", None)


def test_the_vendor_is_told_only_where_it_may_be() -> None:
    """With the setting, the sent field names the trace and the call's own span."""
    bench = Bench(sends_traceparent=True)
    call = call_of(Origin(request_id="r1", traceparent=TRACEPARENT))
    watched = bench.traces.begin(call)
    watched.end(end_of(call))
    assert watched.traceparent == f"00-{TRACE}-{bench.spans()[-1].context.span_id:016x}-01"
