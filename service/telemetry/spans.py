"""Spans: one trace from the caller's `traceparent` through the request, its time in line and its upstream call.

Imports OpenTelemetry, an extra: import this module only if tracing is enabled. Attributes are names from closed sets,
numbers and the request's id: no URL, no query, no key, no signature.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.gateway.call_events import Call, CallEnd, Trace
from service.observe.request import RequestRecord
from service.upstream.results import OK

EXPORT_S = 3.0
"""The time limit of one export, and of the last one, which delays the end of the process."""

App = Any
"""An ASGI application."""

_W3C = TraceContextTextMapPropagator()


def provider_of(endpoint: str | None, *, version: str) -> TracerProvider:
    """Return a provider that exports OTLP over HTTP to `endpoint`, or as set in OpenTelemetry's own variables.

    These variables also control sampling and any further resource attributes.
    """
    resource = Resource.create({"service.name": "taskgate", "service.version": version})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=EXPORT_S)))
    return provider


class Traces:
    """Creates the spans. `edge` wraps the application, `ended` is an observer, `begin` implements `Tracing`.

    With `sends_traceparent`, the upstream gets a `traceparent`, too. It belongs to a vendor, so this is off by default.
    """

    def __init__(self, provider: TracerProvider, *, regions: Mapping[str, str], sends_traceparent: bool) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("taskgate")
        self._regions = regions
        self._sends_traceparent = sends_traceparent

    @asynccontextmanager
    async def flushed(self) -> AsyncIterator[None]:
        """On exit, export the remaining spans, within `EXPORT_S`."""
        try:
            yield
        finally:
            loop, done = asyncio.get_running_loop(), asyncio.Event()

            def shut_down() -> None:
                self._provider.shutdown()
                with suppress(RuntimeError):  # the loop closed without waiting
                    loop.call_soon_threadsafe(done.set)

            # A daemon thread, so that neither the loop nor the interpreter waits for it on exit.
            threading.Thread(target=shut_down, name="traces-end", daemon=True).start()
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), EXPORT_S)

    def edge(self, app: App) -> App:
        """Return the application with a span around each request; the app sees the `traceparent` of that span."""

        async def traced(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            came = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
            span = self._tracer.start_span("request", context=_context(came.decode("latin-1")), kind=SpanKind.SERVER)
            others = [(name, value) for name, value in scope["headers"] if name != b"traceparent"]
            scope["headers"] = [*others, (b"traceparent", _traceparent(span).encode())]
            with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                await app(scope, receive, send)

        return traced

    def ended(self, seen: RequestRecord) -> None:
        """Record the outcome on the request's span. Must be called within that span."""
        span = trace.get_current_span()
        if not span.is_recording():
            return
        span.update_name(f"{seen.labels.method} {seen.labels.route}")
        told: dict[str, str | float | None] = {
            "http.request.method": seen.labels.method,
            "http.route": seen.labels.route,
            "http.response.status_code": seen.labels.status,
            "taskgate.request_id": seen.request_id,
            "taskgate.caller": seen.labels.caller,
            "taskgate.app": seen.labels.app,
            "taskgate.outcome": seen.labels.outcome,
            "taskgate.waited_s": seen.waited_s,
            "taskgate.upstream_s": seen.upstream_s,
        }
        span.set_attributes({name: value for name, value in told.items() if value is not None})
        if seen.labels.status >= 500:
            span.set_status(StatusCode.ERROR)

    def begin(self, call: Call) -> Trace:
        """Record a span for the payer's time in line, which ends now, and begin one for the call."""
        origin = call.payer.origin
        parent = _context(origin.traceparent)
        named: dict[str, str | int] = {
            "taskgate.app": call.app,
            "taskgate.call": call.kind.value,
            "taskgate.caller": call.payer.caller,
        }
        if origin.request_id:
            named["taskgate.request_id"] = origin.request_id
        if origin.traceparent:
            now_ns = time.time_ns()
            entered_ns = now_ns - int(call.payer.waited_s * 1e9)
            self._tracer.start_span("line", context=parent, attributes=named, start_time=entered_ns).end(now_ns)
        told: dict[str, str | int] = named | {
            "taskgate.region": self._regions[call.app],
            "taskgate.attempt": call.attempt,
        }
        span = self._tracer.start_span("upstream", context=parent, kind=SpanKind.CLIENT, attributes=told)
        return _CallTrace(span, traceparent=_traceparent(span) if self._sends_traceparent else "")


class _CallTrace:
    """The span of one call."""

    def __init__(self, span: Span, *, traceparent: str) -> None:
        self._span = span
        self.traceparent = traceparent

    def end(self, end: CallEnd) -> None:
        """Record the result and end the span."""
        self._span.set_attributes({"taskgate.result": end.result, "taskgate.sent": end.sent_at_s is not None})
        if end.code is not None:
            self._span.set_attribute("taskgate.code", end.code)
        if end.result != OK:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


def _context(traceparent: str) -> Context:
    """Return the context in a `traceparent`; if there is none, an empty context, never the current one."""
    return _W3C.extract({"traceparent": traceparent}, context=Context())


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return carrier.get("traceparent", "")
