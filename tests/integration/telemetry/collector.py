"""A trace collector that keeps what it receives, over real HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """The received spans by name, and the raw bytes."""

    def __init__(self) -> None:
        self.raw = b""
        self.spans: list[tuple[str, str, str, dict[str, str]]] = []
        """Name, trace, parent, attributes."""
        self.url = ""

    def take(self, body: bytes) -> None:
        """One export."""
        self.raw += body
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    said = {a.key: a.value.string_value for a in span.attributes}
                    self.spans.append((span.name, span.trace_id.hex(), span.parent_span_id.hex(), said))


@contextmanager
def collecting() -> Iterator[Collector]:
    """Listen as long as this lasts."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take an export."""
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
