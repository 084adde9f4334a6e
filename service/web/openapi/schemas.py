"""Schemas of all bodies, as JSON Schema 2020-12."""

from typing import Any, get_args

import msgspec

from service.model.budgets import ServingState
from service.model.callers import AppInfo
from service.model.errors import Fault
from service.model.queries import Sort
from service.model.tasks import Task
from service.web.page_answer import Envelope
from service.web.problems.from_errors import Problem
from service.web.routes.apps import Apps
from service.web.routes.budget import (
    Budget,
    Pause,
    RecentUpstreamCalls,
    Share,
    Slots,
    UpstreamCalls,
    Used,
    Waiting,
    WorstWindow,
)
from service.web.routes.cache import Dropped
from service.web.routes.state import Live, Ready, Version
from service.web.routes.usage import CallerUsage, HourUsage, MinuteUsage, Spent, Usage
from service.web.stream import End, LastLine

Json = dict[str, Any]
"""A JSON object within the contract."""

_INSTANT: Json = {"format": "date-time"}
_COUNT: Json = {"minimum": 0}

_TASK: Json = {
    "id": {
        "format": "int64",
        "description": "The upstream's id of the task. It may be above 2^53: read a 64-bit integer, not a double.",
    },
    "type": {
        "description": "Who gets the push: `all`, `tag`, `user`, or what the upstream adds.",
    },
    "status": {
        "description": "`pending`, `dispatching`, `dispatched`, or what the upstream adds.",
    },
    "created_at": {"format": "date-time"},
    "scheduled_at": {"format": "date-time"},
    "dispatched": {"description": "Whether the dispatch was successful."},
    "dispatch_error": {"description": "Why the dispatch failed."},
    "push_task_id": {"description": "The push's own id, once it was dispatched."},
    "content": {"description": "What is pushed: the upstream's own JSON, untouched. Its shape differs between tasks."},
}
_PAGE: Json = {
    "since": _INSTANT | {"description": "Where the listed range starts, resolved."},
    "until": _INSTANT | {"description": "Where the listed range ends, resolved."},
    "sort": {"$ref": "#/components/schemas/Sort"},
    "status": {"type": "array", "items": {"type": "string"}, "description": "The filter; empty for any status."},
    "type": {"type": "array", "items": {"type": "string"}, "description": "The filter; empty for any type."},
    "total": _COUNT | {"description": "How many tasks match, over all slices; with a filter, those that pass it."},
    "offset": _COUNT,
    "limit": {"minimum": 1},
    "fetched_at": _INSTANT
    | {
        "description": "When the upstream was asked; of the oldest part, if there are several. After 304 the list is "
        "as old as `Age` says, whatever the body that you hold says."
    },
    "consistent": {
        "description": "False if the list was seen to change while its blocks were fetched one after another: tasks "
        "may be missing from this page. Ask again.",
    },
    "missing": _COUNT
    | {
        "description": "How many tasks this slice lacks by `total`: the upstream gave fewer than it counts, or gave "
        "them without an id. Nearly always 0.",
    },
}
_SORT: Json = {
    "type": "string",
    "description": "The order of a list; a leading minus means latest first.",
    "enum": [each.value for each in Sort],
    "examples": [Sort.SCHEDULED_DESC.value],
    "x-enum-varnames": [each.name for each in Sort],
}
_FAULT: Json = {
    "parameter": {"description": "The parameter's name."},
    "detail": {"description": "What is wrong with it."},
}
_PROBLEM: Json = {
    "type": {"format": "uri-reference", "description": "Opens a page that explains the problem."},
    "status": {"minimum": 400, "maximum": 599},
    "instance": {"format": "uri", "description": "Names this one request."},
    "request_id": {"description": "As in `X-Request-Id`; the operators find the request by it."},
    "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
    "place": {"description": "The place in line, from 1 (`wait-too-long`)."},
    "estimate_seconds": {"description": "The expected wait for the turn (`wait-too-long`)."},
    "bound": {
        "description": "How many requests of the caller may wait (`line-full`), how many watches may be open "
        "(`too-many-watchers`), how many tasks may be gathered (`range-too-wide`).",
    },
    "total": {"description": "How many tasks the range holds (`range-too-wide`)."},
    "upstream_code": {"description": "The upstream's error code."},
    "upstream_text": {"description": "The upstream's error text."},
}
_DROPPED: Json = {
    "dropped": _COUNT | {"description": "How many stored values there were: blocks, and the ends of lists."},
}
_READY: Json = {
    "redis": {"description": "The state of the shared store, in a word or two."},
    "apps_ok": _COUNT | {"description": "For how many apps fetches can be had now."},
    "apps_total": _COUNT,
}
_UPSTREAM_CALLS: Json = {
    "ok": _COUNT | {"description": "Calls that succeeded."},
    "failed": {
        "type": "object",
        "additionalProperties": {"type": "integer", "minimum": 0},
        "description": "Failed calls by result, such as `timeout`, `throttled` or `credentials`; results without any "
        "are left out.",
    },
}
_BUDGET: Json = {
    "state": {
        "enum": list(get_args(ServingState)),
        "description": "`serving`; `stale`: calls fail and stale pages are served; `failing`: at least half of the "
        "calls of the last minute failed; `stopped`: the upstream refuses the app's credentials or account, so no call "
        "is made; `paused`: the upstream asked for a pause; `redis-away`: Redis can't be reached, so no call is made.",
    },
    "state_detail": {"description": "The state as a sentence."},
    "last_success_at": {
        "format": "date-time",
        "description": "When the last successful upstream call ended; null if there was none within a week.",
    },
    "redis": {
        "enum": ["ok", "away"],
        "description": "With `away` all this is what one replica knows: who waits there, and what was used until then.",
    },
    "pause": {
        "oneOf": [{"$ref": "#/components/schemas/Pause"}, {"type": "null"}],
        "description": "Null where that is not known.",
    },
    "callers": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Share"},
        "description": "The asking caller first; for operators all others, too. `~renewal` renews what is stale.",
    },
    "others": {"$ref": "#/components/schemas/Share", "description": "All whom `callers` does not name, together."},
}
_SLOTS: Json = {
    "total": {
        "minimum": 1,
        "description": "Calls in any window, over all replicas; while replicas share them out, this replica's part.",
    },
    "free": {
        "minimum": 0,
        "description": "How many could be made at once; null where that is not known, and no call is made.",
    },
    "window_seconds": {"exclusiveMinimum": 0},
}
_WORST_WINDOW: Json = {
    "last_minute": _COUNT | {"description": "Counted by the replicas' own clocks: a check on the slots."},
    "last_hour": _COUNT,
}
_PAUSE: Json = {
    "seconds": {"minimum": 0, "description": "0 where there is no pause."},
    "reason": {"description": "What the upstream asked for the pause with."},
}
_SHARE: Json = {
    "caller": {"description": "Null for several callers together."},
}
_END: Json = {
    "complete": {"description": "Whether the end of the list was reached."},
    "count": _COUNT | {"description": "How many lines came before this one."},
    "total": _COUNT
    | {
        "description": "How many tasks match, whatever their status and type, by the newest block. Of a range that is "
        "read in parts: the sum over the parts read so far.",
    },
    "changed": {
        "description": "Whether the list was seen to change meanwhile: tasks may be missing or come twice.",
    },
    "missing": _COUNT | {"description": "How many tasks the upstream counts but did not give, or gave without an id."},
    "fetched_at": _INSTANT | {"description": "When the upstream was asked for the oldest part."},
    "stale": {"description": "Whether a part was past its freshness."},
    "problem": {
        "oneOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "null"}],
        "description": "Why the stream ended early; null where it is complete.",
    },
    "next": {
        "format": "uri-reference",
        "description": "Streams the rest; null where there is none.",
    },
}
_USED: Json = {
    "turns": _COUNT | {"description": "Calls of the upstream, each try counted."},
    "joined": _COUNT | {"description": "Fetches saved by joining one that another request had paid for."},
}
_SPENT: Json = {
    "requests": _COUNT | {"description": "Requests for pages."},
    "hits": _COUNT | {"description": "Of these, answered with what was stored and fresh."},
    "joins": _COUNT | {"description": "Fetches spared by joining one that another request had paid for."},
    "stale": _COUNT | {"description": "Requests answered with what was stored, though it was fresh no longer."},
    "fetches": _COUNT | {"description": "Calls of the upstream that were paid for, each try counted."},
    "waits": _COUNT | {"description": "Requests that waited in line for their answer, however short."},
    "refusals": _COUNT | {"description": "Requests that were refused, for no fetch could be had in time."},
    "failed": _COUNT | {"description": "Upstream calls that failed, of `fetches`."},
    "saved": _COUNT | {"description": "What caching and joining saved: `hits` and `joins` together."},
}
_MINUTE_USAGE: Json = {"start": _INSTANT, "used": {"$ref": "#/components/schemas/Spent"}}
_HOUR_USAGE: Json = {"start": _INSTANT, "used": {"$ref": "#/components/schemas/Spent"}}
_CALLER_USAGE: Json = {"caller": {"type": "string"}, "used": {"$ref": "#/components/schemas/Spent"}}
_USAGE: Json = {
    "caller": {"description": "Whose usage this is; null for everybody's."},
    "redis": {"enum": ["ok", "away"], "description": "With `away` this is what one replica knows."},
    "since": _INSTANT | {"description": "The start of the first minute, or hour."},
    "until": _INSTANT | {"description": "Now."},
    "total": {"$ref": "#/components/schemas/Spent", "description": "Of all `callers`."},
    "callers": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/CallerUsage"},
        "description": "Who used anything, by name. `~renewal` renews what is stale, `~ahead` fetches ahead.",
    },
    "minutes": {
        "type": "array",
        "maxItems": 60,
        "items": {"$ref": "#/components/schemas/MinuteUsage"},
        "description": "All callers together, minute by minute of the last hour without gaps; the last is under way.",
    },
    "hours": {
        "type": "array",
        "maxItems": 168,
        "items": {"$ref": "#/components/schemas/HourUsage"},
        "description": "All `callers` together, hour by hour (UTC) without gaps, where `since` lies more than an hour "
        "back; else none.",
    },
}


def schemas() -> Json:
    """Return all schemas by name. Raise ValueError if a schema does not match the struct that it describes."""
    page = _object(Envelope, _PAGE)
    page["properties"]["tasks"] = {"type": "array", "items": {"$ref": "#/components/schemas/Task"}}
    page["required"].append("tasks")
    return {
        "App": _object(AppInfo, {"name": {"type": "string"}, "region": {"type": ["string", "null"]}}),
        "AppList": _object(Apps, {"apps": {"type": "array", "items": {"$ref": "#/components/schemas/App"}}})
        | {"description": "The apps that a caller may read."},
        "Budget": _object(Budget, _BUDGET)
        | {"description": "An app's calls: how many are free, who waits for them, and who has used them."},
        "CallerUsage": _object(CallerUsage, _CALLER_USAGE),
        "Contract": {"type": "object", "description": "An OpenAPI document."},
        "Dropped": _object(Dropped, _DROPPED),
        "End": _object(End, _END),
        "Fault": _object(Fault, _FAULT),
        "HourUsage": _object(HourUsage, _HOUR_USAGE),
        "LastLine": _object(LastLine, {"end": {"$ref": "#/components/schemas/End"}}),
        "Liveness": _object(Live, {"live": {"const": True}}),
        "MinuteUsage": _object(MinuteUsage, _MINUTE_USAGE),
        "Page": page | {"description": "One slice of a list, with what was listed."},
        "Pause": _object(Pause, _PAUSE),
        "Problem": _object(Problem, _PROBLEM),
        "Readiness": _object(Ready, _READY),
        "RecentUpstreamCalls": _object(
            RecentUpstreamCalls,
            {name: {"$ref": "#/components/schemas/UpstreamCalls"} for name in ("last_minute", "last_hour")},
        ),
        "Share": _object(Share, _SHARE),
        "Slots": _object(Slots, _SLOTS),
        "Sort": _SORT,
        "Spent": _object(Spent, _SPENT),
        "Task": _object(Task, _TASK),
        "UpstreamCalls": _object(UpstreamCalls, _UPSTREAM_CALLS),
        "Usage": _object(Usage, _USAGE),
        "Used": _object(Used, _USED),
        "Version": _object(Version, {"name": {"const": "taskgate"}, "version": {"type": "string"}}),
        "Waiting": _object(
            Waiting,
            {
                "count": _COUNT | {"description": "Blocks that wait for a turn."},
                "oldest_seconds": {"type": "number", "minimum": 0},
            },
        ),
        "WorstWindow": _object(WorstWindow, _WORST_WINDOW),
    }


def _object(struct: type[msgspec.Struct], texts: Json) -> Json:
    """Return the struct's schema as derived by msgspec, with the additions in `texts` merged into its members.

    A member of `texts` that defines a type of its own (`_SHAPES`) replaces the derived schema. The description is the
    first line of the struct's docstring.
    """
    _, made = msgspec.json.schema_components([struct], ref_template="{name}")
    omits = struct.__struct_config__.omit_defaults
    properties = made[struct.__name__]["properties"]
    derived = {name: _tidied(member, is_null_sent=not omits) for name, member in properties.items()}
    if unknown := set(texts) - set(derived):
        raise ValueError(f"{struct.__name__} has no {', '.join(sorted(unknown))}")
    return {
        "type": "object",
        "description": (struct.__doc__ or "").split("\n", maxsplit=1)[0],
        "properties": {name: _merged(member, texts.get(name, {})) for name, member in derived.items()},
        "required": [each.encode_name for each in msgspec.structs.fields(struct) if each.required or not omits],
    }


_SHAPES = frozenset(("$ref", "oneOf", "const", "items", "additionalProperties"))
_RENAMED = {"AppInfo": "App", "Apps": "AppList", "Live": "Liveness", "Ready": "Readiness"}


def _merged(derived: Json, text: Json) -> Json:
    return dict(text) if _SHAPES & set(text) else derived | text


def _tidied(member: Json, *, is_null_sent: bool) -> Json:
    """Return a member's schema without its default, with `null` among its types and references renamed.

    If defaults are omitted from responses, null is never sent and so is not listed.
    """
    member = {key: value for key, value in member.items() if key != "default"}
    if "$ref" in member:
        name = member["$ref"]
        return {"$ref": f"#/components/schemas/{_RENAMED.get(name, name)}"}
    if "items" in member:
        return member | {"items": _tidied(member["items"], is_null_sent=is_null_sent)}
    options: list[Json] = member.get("anyOf", [])
    if len(options) == 2 and options[1] == {"type": "null"} and "type" in options[0]:
        one = options[0]
        return one | {"type": [one["type"], "null"]} if is_null_sent else one
    return {"type": "string"} | member if "enum" in member else member
