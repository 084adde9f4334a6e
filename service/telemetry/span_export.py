"""The export of spans. Imports OpenTelemetry, an extra: import this module only if tracing is enabled."""

from collections.abc import Mapping
from uuid import uuid4

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

EXPORT_S = 3.0
"""The default time limit of one export."""

_TIMEOUTS = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")


def provider_of(endpoint: str | None, environ: Mapping[str, str], *, version: str) -> TracerProvider:
    """Return a provider that exports OTLP over HTTP to `endpoint`, or as OpenTelemetry's own variables say.

    These also control sampling, batches, headers, certificates and compression, and go before our own resource
    attributes.
    """
    ours = {"service.name": "taskgate", "service.version": version, "service.instance.id": str(uuid4())}
    resource = Resource.create(ours | dict(OTELResourceDetector().detect().attributes))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    timeout_s = None if any(environ.get(name) for name in _TIMEOUTS) else EXPORT_S
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=timeout_s)))
    return provider
