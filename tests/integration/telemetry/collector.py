"""A trace collector that keeps what it receives, over real HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it arrived, with the resource that it belongs to."""

    name: str
    kind: str
    trace: str
    parent: str
    tracestate: str
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]


class Collector:
    """The received spans, the request heads of the exports, and the raw bytes."""

    def __init__(self) -> None:
        self.raw = b""
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.spans: list[ReceivedSpan] = []
        self.url = ""

    def take(self, body: bytes) -> None:
        """One export."""
        self.raw += body
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            about = _values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_received(span, about) for span in scope.spans]

    def of(self, trace: str) -> list[ReceivedSpan]:
        """The spans of a trace, by name."""
        return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.name)


def _received(span: Span, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace=span.trace_id.hex(),
        parent=span.parent_span_id.hex(),
        tracestate=span.trace_state,
        is_error=span.status.code == 2,
        attributes=_values(span.attributes),
        resource=resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen while the context is entered."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take an export."""
            made.paths.append(self.path)
            made.headers.append({name.lower(): value for name, value in self.headers.items()})
            made.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
