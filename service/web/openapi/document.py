"""The whole contract as OpenAPI 3.1, the same for every configuration."""

import msgspec

from service import __version__
from service.web.openapi.fields import answer_fields, request_fields
from service.web.openapi.operations import paths
from service.web.openapi.schemas import Json, schemas

_DESCRIPTION = """Pages of scheduled push tasks, from an upstream that may be called only a few times a second.

Taskgate keeps what it has fetched, serves it to everyone who may read it, and shares the calls out fairly among those
who need more. So most answers come at once, some take a moment, and every one says how old it is.

* **Freshness** is told with `Age`, `Cache-Control` and `Cache-Status`, and steered with request `Cache-Control`.
* **Patience** is told with `Prefer: wait=SECONDS`; a wait that can't be met is refused at once, with `Retry-After`.
* **Errors** are problems (RFC 9457). Open a problem's `type` to read what it means and what to do.

To try it here, press *Authorize* and paste your key. `GET /apps` tells what it may read.

Every resource answers `HEAD` as it answers `GET`, without the body; `OPTIONS`, and 405 for any other method, tell in
`Allow` what it answers. Every answer carries `X-Request-Id`."""

_TAGS = (
    ("Tasks", "The tasks, and whose they are."),
    ("Problems", "What each type of problem means."),
    ("State", "For those who run this service."),
    ("Contract", "This document; `/docs` shows it to people."),
)


def openapi_document() -> bytes:
    """The contract as JSON text, indented, the same at every call."""
    return msgspec.json.format(msgspec.json.encode(_document()), indent=2) + b"\n"


def _document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Taskgate",
            "version": __version__,
            "summary": "Shared, fair and fresh access to a rate-limited list of scheduled push tasks.",
            "description": _DESCRIPTION,
            "contact": {"name": "The operators of this gateway"},
            "license": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This gateway."}],
        "tags": [{"name": name, "description": description} for name, description in _TAGS],
        "security": [{"key": []}],
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The key that your service was given, or its Kubernetes service account's token for "
                    "this gateway: `Authorization: Bearer KEY`.",
                }
            },
            "parameters": request_fields(),
            "headers": answer_fields(),
            "schemas": schemas(),
        },
    }
