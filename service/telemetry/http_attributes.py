"""Attributes of spans, by OpenTelemetry's semantic conventions for HTTP."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from service.observe.outcomes import HUNG_UP, PAGES, STREAMED
from service.observe.request import UNROUTED, RequestRecord

Attributes = dict[str, str | int | float | bool]

OTHER_METHOD = "_OTHER"
REDACTED = "REDACTED"
USER_AGENT_MAX_CHARS = 256

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"))
_PORTS = {"http": 80, "https": 443}
_OUTCOMES_WITHOUT_ERROR_TYPE = PAGES | {STREAMED, HUNG_UP, None}


def span_name(attributes: Mapping[str, object]) -> str:
    """Return the name of a span: the method, and the target if that is one of few."""
    method = attributes["http.request.method"]
    target = attributes.get("http.route") or attributes.get("url.template")
    name = "HTTP" if method == OTHER_METHOD else str(method)
    return name if target is None else f"{name} {target}"


def request_attributes(method: str, *, scheme: str) -> Attributes:
    """Return what every request has; `method` is empty if it could not be read."""
    attributes: Attributes = {"url.scheme": scheme, "http.request.method": method}
    if method not in _METHODS:
        attributes["http.request.method"] = OTHER_METHOD
        if method:
            attributes["http.request.method_original"] = method
    return attributes


def server_attributes(scope: Any) -> Attributes:
    """Return the attributes known before a request is handled. `Host` is the client's own claim."""
    attributes = request_attributes(scope["method"], scheme=scope["scheme"])
    attributes["network.protocol.version"] = scope["http_version"]
    fields = dict(scope["headers"])
    if host := fields.get(b"host"):
        attributes |= _address(f"{scope['scheme']}://{host.decode('latin-1')}")
    if agent := fields.get(b"user-agent"):
        attributes["user_agent.original"] = agent.decode("latin-1")[:USER_AGENT_MAX_CHARS]
    if peer := scope.get("client"):
        attributes |= {"network.peer.address": peer[0], "network.peer.port": peer[1]}
    return attributes


def outcome_attributes(record: RequestRecord) -> Attributes:
    """Return what is known about a request after it has ended. There is an `error.type` if a fault is not the client's.

    A stream that was ended by a problem has the status 200, and the problem's name as its error. The path is that of
    the route: others may hold anything, such as a key in the wrong place.
    """
    labels = record.labels
    route = None if labels.route == UNROUTED else labels.route
    attributes: dict[str, str | int | float | None] = {
        "http.route": route,
        "url.path": route or REDACTED,
        "http.response.status_code": labels.status,
        "client.address": record.client,
        "taskgate.request_id": record.request_id,
        "taskgate.caller": labels.caller,
        "taskgate.app": labels.app,
        "taskgate.outcome": labels.outcome,
        "taskgate.waited_s": record.waited_s,
        "taskgate.upstream_s": record.upstream_s,
        "taskgate.calls": record.calls,
    }
    if labels.status >= 500:
        attributes["error.type"] = str(labels.status)
    elif labels.status < 400 and labels.outcome not in _OUTCOMES_WITHOUT_ERROR_TYPE:
        attributes["error.type"] = labels.outcome
    return {name: value for name, value in attributes.items() if value is not None}


def client_attributes(method: str, url: str) -> Attributes:
    """Return the attributes of a request to `url`. It has no query, and one of few paths: those in the settings."""
    attributes = request_attributes(method, scheme=urlsplit(url).scheme)
    return attributes | _address(url) | {"url.full": url, "url.template": urlsplit(url).path}


def _address(url: str) -> Attributes:
    """Return host and port of a URL; nothing if it has no valid one."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return {}
    if host is None or port is None:
        return {}
    return {"server.address": host, "server.port": port}
