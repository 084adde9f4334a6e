"""The whole contract as OpenAPI 3.1, the same for every configuration."""

from importlib.resources import files

import msgspec

from service import __version__
from service.web.openapi.fields import request_fields, response_fields
from service.web.openapi.operations import paths
from service.web.openapi.problems import problem_examples, problem_responses
from service.web.openapi.schemas import Json, schemas

_TAGS = (
    ("Tasks", "Tasks, apps, budgets and usage."),
    ("Problems", "What each type of problem means."),
    ("State", "For operators and orchestrators."),
    ("Contract", "This document; `/docs` presents it to readers."),
)


def openapi_document() -> bytes:
    """Return the contract as indented JSON text; every call returns the same bytes."""
    return msgspec.json.format(msgspec.json.encode(_document()), indent=2) + b"\n"


def _document() -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Taskgate",
            "version": __version__,
            "summary": "Shared, fair and fresh access to a rate-limited list of scheduled push tasks.",
            "description": _description(),
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
                    "description": "Your service's key, or its Kubernetes service account's token for this gateway: "
                    "`Authorization: Bearer KEY`.",
                }
            },
            "parameters": request_fields(),
            "headers": response_fields(),
            "responses": problem_responses(),
            "examples": problem_examples(),
            "schemas": schemas(),
        },
    }


def _description() -> str:
    """Return "Getting started" and notes that apply to all operations, as Markdown; its samples are tested."""
    return (files("service.web.openapi") / "description.md").read_text(encoding="utf-8")
