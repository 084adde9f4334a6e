"""The shapes of all bodies, as JSON Schema 2020-12."""

from typing import Any

import msgspec

from service.model.callers import AppInfo
from service.model.errors import Fault
from service.model.queries import Sort
from service.model.tasks import Task
from service.web.page_answer import Envelope
from service.web.problems import Problem
from service.web.routes.apps import Apps
from service.web.routes.state import Live, Ready, Version

Json = dict[str, Any]
"""A part of the contract, which is itself JSON."""

_INSTANT: Json = {"type": "string", "format": "date-time"}
_COUNT: Json = {"type": "integer", "minimum": 0}

_TASK: Json = {
    "id": {"type": "integer", "description": "The upstream's id of the task."},
    "type": {"type": "string", "description": "Who gets the push: `all`, `tag`, `user`, or what the upstream adds."},
    "status": {
        "type": "string",
        "description": "`pending`, `dispatching`, `dispatched`, or what the upstream adds.",
    },
    "title": {"type": "string"},
    "description": {"type": "string"},
    "created_at": {"type": ["string", "null"], "format": "date-time"},
    "scheduled_at": {"type": ["string", "null"], "format": "date-time"},
    "dispatched": {"type": "boolean", "description": "Whether the dispatch was successful."},
    "dispatch_error": {"type": ["string", "null"], "description": "Why the dispatch failed."},
    "push_task_id": {"type": ["string", "null"], "description": "The push's own id, once it was dispatched."},
    "content": {"description": "What is pushed: the upstream's own JSON, untouched. Its shape differs between tasks."},
}
_PAGE: Json = {
    "app": {"type": "string"},
    "since": _INSTANT | {"description": "Where the listed range starts, resolved."},
    "until": _INSTANT | {"description": "Where the listed range ends, resolved."},
    "sort": {"type": "string", "enum": [each.value for each in Sort]},
    "q": {"type": ["string", "null"]},
    "total": _COUNT | {"description": "How many tasks match, over all slices."},
    "offset": _COUNT,
    "limit": {"type": "integer", "minimum": 1},
    "fetched_at": _INSTANT | {"description": "When the upstream was asked; of the older part, where there are two."},
}
_FAULT: Json = {
    "parameter": {"type": "string", "description": "The parameter's name."},
    "detail": {"type": "string", "description": "What is wrong with it."},
}
_PROBLEM: Json = {
    "type": {"type": "string", "format": "uri-reference", "description": "Opens a page that explains the problem."},
    "title": {"type": "string"},
    "status": {"type": "integer", "minimum": 400, "maximum": 599},
    "detail": {"type": "string"},
    "instance": {"type": "string", "format": "uri", "description": "Names this one request."},
    "request_id": {"type": "string", "description": "As in `X-Request-Id`; the operators find the request by it."},
    "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
    "place": {"type": "integer", "description": "The place in line, from 1 (`wait-too-long`)."},
    "estimate_seconds": {"type": "number", "description": "The expected wait for the turn (`wait-too-long`)."},
    "bound": {"type": "integer", "description": "How many requests of the caller may wait (`line-full`)."},
    "upstream_code": {"type": "integer", "description": "The upstream's error code."},
    "upstream_text": {"type": "string", "description": "The upstream's error text."},
}
_READY: Json = {
    "ready": {"type": "boolean"},
    "redis": {"type": "string", "description": "The state of the shared store, in a word or two."},
    "apps_ok": _COUNT | {"description": "For how many apps fetches can be had now."},
    "apps_total": _COUNT,
}


def schemas() -> Json:
    """All schemas by name. Raises ValueError where one differs from the struct that it describes."""
    page = _object(Envelope, _PAGE)
    page["properties"]["tasks"] = {"type": "array", "items": {"$ref": "#/components/schemas/Task"}}
    page["required"].append("tasks")
    return {
        "App": _object(AppInfo, {"name": {"type": "string"}, "region": {"type": ["string", "null"]}}),
        "Apps": _object(Apps, {"apps": {"type": "array", "items": {"$ref": "#/components/schemas/App"}}}),
        "Fault": _object(Fault, _FAULT),
        "Live": _object(Live, {"live": {"const": True}}),
        "Page": page,
        "Problem": _object(Problem, _PROBLEM),
        "Ready": _object(Ready, _READY),
        "Task": _object(Task, _TASK),
        "Version": _object(Version, {"name": {"const": "taskgate"}, "version": {"type": "string"}}),
    }


def _object(struct: type[msgspec.Struct], properties: Json) -> Json:
    if list(properties) != list(struct.__struct_fields__):
        raise ValueError(f"the schema of {struct.__name__} lists other fields than the struct")
    omits = struct.__struct_config__.omit_defaults
    required = [each.encode_name for each in msgspec.structs.fields(struct) if each.required or not omits]
    return {
        "type": "object",
        "description": (struct.__doc__ or "").split("\n", maxsplit=1)[0],
        "properties": dict(properties),
        "required": required,
    }
