"""Decides whether tracing is enabled. OpenTelemetry is an extra: without an endpoint it is not even imported."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from service.settings import TelemetrySettings

if TYPE_CHECKING:
    from service.telemetry.spans import Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log = structlog.get_logger(__name__)


def traces_of(
    settings: TelemetrySettings, environ: Mapping[str, str], *, regions: Mapping[str, str], version: str
) -> "Traces | None":
    """Return the tracer, or None if neither the settings nor the environment name an endpoint.

    An endpoint in the environment may be meant for everything in a cluster: without the extra it is ignored, with a
    warning.
    """
    if settings.otlp_endpoint is None and not any(environ.get(name) for name in ENDPOINTS):
        return None
    try:
        from service.telemetry.spans import Traces, provider_of
    except ImportError:
        log.warning("traces.unavailable", reason="an endpoint is set, but the extra 'otel' is not installed")
        return None
    provider = provider_of(settings.otlp_endpoint, version=version)
    return Traces(provider, regions=regions, sends_traceparent=settings.send_traceparent)
