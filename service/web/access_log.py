"""One event for each request that has ended. Query strings, credentials and bodies are never among its fields."""

import structlog

from service.web.trail import Observation

_log = structlog.get_logger()


def log_request(observation: Observation) -> None:
    """Log the event `request`; times in milliseconds."""
    _log.info(
        "request",
        request_id=observation.request_id,
        method=observation.method,
        route=observation.route,
        status=observation.status,
        caller=observation.caller,
        app=observation.app,
        outcome=observation.outcome,
        waited_ms=round(observation.waited_s * 1000, 1),
        upstream_ms=round(observation.upstream_s * 1000, 1),
        duration_ms=round(observation.duration_s * 1000, 2),
    )
