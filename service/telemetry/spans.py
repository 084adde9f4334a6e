"""Spans: one trace from the caller's `traceparent` through the request, its time in line and its upstream call.

Imports OpenTelemetry, an extra: import this module only if tracing is enabled. Names and attributes follow its semantic
conventions for HTTP, but no query is ever recorded (callers' contain what they search for, ours a signature), and no
path that matches no route.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.observe.request import TRACESTATE_MAX_BYTES, RequestRecord
from service.telemetry.http_attributes import (
    Attributes,
    client_attributes,
    outcome_attributes,
    request_attributes,
    server_attributes,
    span_name,
)
from service.upstream.call_events import CallTrace, TraceFields, UpstreamCall, UpstreamCallEnd
from service.upstream.verdicts import HTTP_STATUS, OK

LAST_EXPORT_S = 3.0
"""The time limit of the last export, which delays the end of the process."""

UNTRACED = frozenset(("/livez", "/readyz"))
"""Probes: a trace each would be most of the traces of an idle gateway."""

App = Any
"""An ASGI application."""

TRACEPARENT_MAX_CHARS = 128
"""Longer than any valid one; the propagator logs long ones."""

_W3C = TraceContextTextMapPropagator()
_CONTEXT_FIELDS = (b"traceparent", b"tracestate")


class Traces:
    """Creates the spans. `traced` wraps the application, `ended` is an observer, `begin` implements `CallTracing`.

    With `sends_traceparent`, the upstream gets `traceparent` and `tracestate`, too. It belongs to a vendor, so this is
    off by default.
    """

    def __init__(self, provider: TracerProvider, *, regions: Mapping[str, str], sends_traceparent: bool) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("taskgate")
        self._regions = regions
        self._sends_traceparent = sends_traceparent

    @asynccontextmanager
    async def flushed(self) -> AsyncIterator[None]:
        """On exit, export the remaining spans, within `LAST_EXPORT_S`."""
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
                await asyncio.wait_for(done.wait(), LAST_EXPORT_S)

    def traced(self, app: App) -> App:
        """Return the application with a span around each request; the app sees the trace context of that span."""

        async def serve_traced(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"] in UNTRACED:
                await app(scope, receive, send)
                return
            incoming = {name: [value for each, value in scope["headers"] if each == name] for name in _CONTEXT_FIELDS}
            context = trace_context(*(b",".join(incoming[name]).decode("latin-1") for name in _CONTEXT_FIELDS))
            attributes = server_attributes(scope)
            name = span_name(attributes)
            span = self._tracer.start_span(name, context=context, kind=SpanKind.SERVER, attributes=attributes)
            others = [field for field in scope["headers"] if field[0] not in _CONTEXT_FIELDS]
            scope["headers"] = others + [(name.encode(), value.encode()) for name, value in _fields_of(span)]
            with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
                await app(scope, receive, send)

        return serve_traced

    def ended(self, record: RequestRecord) -> None:
        """Record the outcome on the request's span. Must be called within that span, if the request has one."""
        span = trace.get_current_span()
        if span.is_recording():
            _set_outcome(span, record)
        elif not span.get_span_context().is_valid and record.labels.method == "other":
            self._record_refused(record)

    def begin(self, call: UpstreamCall) -> CallTrace:
        """Record a span for the payer's time in line, which ends now, and begin one for the call."""
        origin = call.payer.origin
        parent = trace_context(origin.traceparent, origin.tracestate)
        named: Attributes = {
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
        attributes = named | {"taskgate.region": self._regions[call.app], "taskgate.attempt": call.attempt}
        if call.attempt > 1:
            attributes["http.request.resend_count"] = call.attempt - 1
        span = self._tracer.start_span("POST", context=parent, kind=SpanKind.CLIENT, attributes=attributes)
        return _CallSpan(span, fields=_fields_of(span) if self._sends_traceparent else ())

    def _record_refused(self, record: RequestRecord) -> None:
        """Record a span for input that the server has refused, which has never become a request."""
        attributes = request_attributes("", scheme="http")
        name, ended_ns = span_name(attributes), int(record.ended_at_s * 1e9)
        span = self._tracer.start_span(
            name,
            context=Context(),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=ended_ns - int(record.duration_s * 1e9),
        )
        _set_outcome(span, record)
        span.end(ended_ns)


class _CallSpan:
    """The span of one call; implements `CallTrace`."""

    def __init__(self, span: Span, *, fields: TraceFields) -> None:
        self.fields = fields
        self._span = span
        self._status: int | None = None

    def sends(self, method: str, url: str) -> None:
        """Record the host, that of the last attempt if there are several."""
        attributes = client_attributes(method, url)
        self._span.update_name(span_name(attributes))
        self._span.set_attributes(attributes)

    def answered(self, status: int) -> None:
        """Record the status."""
        self._status = status
        self._span.set_attribute("http.response.status_code", status)

    def end(self, end: UpstreamCallEnd) -> None:
        """Record the result and end the span."""
        self._span.set_attributes({"taskgate.result": end.result, "taskgate.sent": end.sent_at_s is not None})
        if end.code is not None:
            self._span.set_attribute("taskgate.code", end.code)
        if end.result != OK:
            self._span.set_status(StatusCode.ERROR)
            is_status = end.result == HTTP_STATUS and self._status is not None
            self._span.set_attribute("error.type", str(self._status) if is_status else end.result)
        self._span.end()


def _set_outcome(span: Span, record: RequestRecord) -> None:
    attributes = outcome_attributes(record)
    span.set_attributes(attributes)
    if "http.route" in attributes:
        span.update_name(f"{record.labels.method} {record.labels.route}")
    if "error.type" in attributes:
        span.set_status(StatusCode.ERROR)


def trace_context(traceparent: str, tracestate: str) -> Context:
    """Return the context in these fields; if there is none, an empty context, never the current one."""
    if len(tracestate) > TRACESTATE_MAX_BYTES:  # the propagator would log it
        tracestate = ""
    return _W3C.extract(
        {"traceparent": traceparent[:TRACEPARENT_MAX_CHARS], "tracestate": tracestate}, context=Context()
    )


def _fields_of(span: Span) -> TraceFields:
    """Return the header fields that continue the span's trace."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, context=trace.set_span_in_context(span, Context()))
    return tuple(carrier.items())
