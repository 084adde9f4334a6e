"""Decides whether tracing is enabled. OpenTelemetry is an extra: without an endpoint it is not even imported."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog

from service.settings import TelemetrySettings

if TYPE_CHECKING:
    from service.telemetry.spans import Traces

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
"""The only supported protocol."""

log = structlog.get_logger(__name__)


def traces_of(
    settings: TelemetrySettings, environ: Mapping[str, str], *, regions: Mapping[str, str], version: str
) -> "Traces | None":
    """Return the tracer, or None if neither the settings nor the environment name an endpoint.

    An endpoint in the environment may be meant for everything in a cluster: if it can't be used it is ignored, with a
    warning.
    """
    if not _is_enabled(settings, environ):
        return None
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), PROTOCOL)
    if settings.otlp_endpoint is None and protocol != PROTOCOL:
        log.warning("traces.unavailable", reason=f"the protocol is {protocol}; only {PROTOCOL} is supported")
        return None
    try:
        from service.telemetry.span_export import provider_of
        from service.telemetry.spans import Traces
    except ImportError:
        log.warning("traces.unavailable", reason="an endpoint is set, but the extra 'otel' is not installed")
        return None
    provider = provider_of(settings.otlp_endpoint, environ, version=version)
    return Traces(provider, regions=regions, sends_traceparent=settings.send_traceparent)


def _is_enabled(settings: TelemetrySettings, environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if settings.otlp_endpoint is not None:
        return True
    exporter = environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    return exporter != "none" and any(environ.get(name) for name in ENDPOINTS)
