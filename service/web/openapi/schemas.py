"""Schemas of all bodies, as JSON Schema 2020-12."""

from typing import Any, get_args

import msgspec

from service.model.budgets import ServingState
from service.model.callers import AppInfo
from service.model.calls import CallKind
from service.model.errors import Fault
from service.model.queries import Sort
from service.model.tasks import Task
from service.web.page_body import Envelope
from service.web.problems.from_errors import Problem
from service.web.routes.apps import AppListBody
from service.web.routes.budget import (
    BudgetBody,
    PauseBody,
    RecentUpstreamCallsBody,
    ShareBody,
    SlotsBody,
    UpstreamCallsBody,
    UsedBody,
    WaitingBody,
    WorstWindowBody,
)
from service.web.routes.cache import DroppedBody
from service.web.routes.state import LivenessBody, ReadinessBody, VersionBody
from service.web.routes.usage import CallerUsageBody, HourUsageBody, MinuteUsageBody, SpentBody, UsageBody
from service.web.stream import LastLine, StreamEnd

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
        "description": "The recipients of the push: `all`, `tag`, `user`, or a value that the upstream adds later.",
    },
    "status": {
        "description": "`pending`, `dispatching`, `dispatched`, or a value that the upstream adds later.",
    },
    "created_at": {"format": "date-time"},
    "scheduled_at": {"format": "date-time"},
    "dispatched": {"description": "Whether the dispatch was successful."},
    "dispatch_error": {"description": "Why the dispatch failed."},
    "push_task_id": {"description": "The id of the push, once it was dispatched."},
    "content": {
        "description": "The content of the push: the upstream's own JSON, unchanged. Its structure differs "
        "between tasks."
    },
}
_PAGE: Json = {
    "since": _INSTANT | {"description": "The start of the listed range, as an instant."},
    "until": _INSTANT | {"description": "The end of the listed range, as an instant."},
    "sort": {"$ref": "#/components/schemas/Sort"},
    "status": {"type": "array", "items": {"type": "string"}, "description": "The filter; empty for any status."},
    "type": {"type": "array", "items": {"type": "string"}, "description": "The filter; empty for any type."},
    "total": _COUNT
    | {"description": "The number of matching tasks over all slices; with a filter, of tasks that pass it."},
    "offset": _COUNT,
    "limit": {"minimum": 1},
    "fetched_at": _INSTANT
    | {
        "description": "When the page was fetched; if it has several parts, when the oldest one was. After a 304, "
        "`Age` is the age of the list, even if the body that you have says otherwise."
    },
    "consistent": {
        "description": "False if the list was seen to change between the fetches of its blocks: tasks may be missing "
        "from this page. Repeat the request.",
    },
    "missing": _COUNT
    | {
        "description": "How many tasks this slice lacks compared with `total`: the upstream returned fewer than it "
        "counts, or returned some without an id. Nearly always 0.",
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
    "type": {"format": "uri-reference", "description": "The address of a page that explains the problem."},
    "status": {"minimum": 400, "maximum": 599},
    "instance": {"format": "uri", "description": "Identifies this request."},
    "request_id": {"description": "As in `X-Request-Id`; operators can find the request by it."},
    "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
    "place": {"description": "The place in line, from 1 (`wait-too-long`)."},
    "estimate_seconds": {"description": "The expected wait for the turn (`wait-too-long`)."},
    "bound": {
        "description": "The maximum number of waiting requests of the caller (`line-full`), of open watches "
        "(`too-many-watchers`), of tasks collected for one request (`range-too-wide`), or of tasks in a stream "
        "(`stream-too-long`).",
    },
    "total": {"description": "The number of tasks in the range (`range-too-wide`)."},
    "upstream_code": {"description": "The upstream's error code."},
    "upstream_text": {"description": "The upstream's error text."},
}
_DROPPED: Json = {
    "dropped": _COUNT | {"description": "The number of stored values: blocks, and the ends of lists."},
}
_READY: Json = {
    "redis": {"description": "The state of the shared store: `ok` or `away`."},
    "apps_ok": _COUNT | {"description": "The number of apps for which fetches are possible now."},
    "apps_total": _COUNT,
}
_UPSTREAM_CALLS: Json = {
    "ok": _COUNT | {"description": "Calls that succeeded."},
    "failed": {
        "type": "object",
        "additionalProperties": {"type": "integer", "minimum": 0},
        "description": "Failed calls by result, such as `timeout`, `throttled` or `credentials`; results without calls "
        "are omitted.",
    },
}
_CALL: Json = {
    "type": "string",
    "enum": [each.value for each in CallKind],
    "description": "The kind of upstream call: `list` for lists, `get` for single tasks.",
}
_BUDGET: Json = {
    "call": {"$ref": "#/components/schemas/CallKind"},
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
        "description": "If `away`, the other members show only what one replica knows: its own waiting callers, and "
        "usage up to the outage.",
    },
    "pause": {
        "oneOf": [{"$ref": "#/components/schemas/Pause"}, {"type": "null"}],
        "description": "Null if unknown.",
    },
    "callers": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Share"},
        "description": "The requesting caller first; for operators all others, too. `~renewal` refreshes stale blocks.",
    },
    "others": {"$ref": "#/components/schemas/Share", "description": "All callers that are not in `callers`, combined."},
}
_SLOTS: Json = {
    "total": {
        "minimum": 1,
        "description": "Calls in any window, over all replicas; this replica's share while Redis is away and replicas "
        "split the calls.",
    },
    "free": {
        "minimum": 0,
        "description": "Calls that can be made immediately; null if unknown, in which case no call is made.",
    },
    "window_seconds": {"exclusiveMinimum": 0},
}
_WORST_WINDOW: Json = {
    "last_minute": _COUNT
    | {"description": "Counted by the replicas' own clocks, as an independent check on the slots."},
    "last_hour": _COUNT,
}
_PAUSE: Json = {
    "seconds": {"minimum": 0, "description": "0 if there is no pause."},
    "reason": {"description": "The reason for the pause, such as `throttled`."},
}
_SHARE: Json = {
    "caller": {"description": "Null for several callers combined."},
}
_END: Json = {
    "complete": {"description": "Whether the end of the list was reached."},
    "count": _COUNT | {"description": "The number of lines before this one."},
    "total": _COUNT
    | {
        "description": "The number of tasks of any status and type in the range, according to the newest block. For a "
        "range that is read in parts: the sum over the parts read so far.",
    },
    "changed": {
        "description": "Whether the list was seen to change during the stream: tasks may be missing or repeated.",
    },
    "missing": _COUNT
    | {"description": "How many tasks the upstream counts but did not return, or returned without an id."},
    "fetched_at": _INSTANT | {"description": "When the oldest part was fetched."},
    "stale": {"description": "Whether a part was past its freshness."},
    "problem": {
        "oneOf": [{"$ref": "#/components/schemas/Problem"}, {"type": "null"}],
        "description": "Why the stream ended early; null if it is complete.",
    },
    "next": {
        "format": "uri-reference",
        "description": "The address of the rest as a stream; null if there is none.",
    },
}
_USED: Json = {
    "turns": _COUNT | {"description": "Upstream calls, counting each attempt."},
    "joined": _COUNT | {"description": "Fetches saved by joining one that another request had started."},
}
_SPENT: Json = {
    "requests": _COUNT | {"description": "Requests for tasks that may need this kind of call."},
    "hits": _COUNT | {"description": "Requests answered from storage, fresh."},
    "joins": _COUNT | {"description": "Fetches saved by joining one that another request had started."},
    "stale": _COUNT | {"description": "Requests answered from storage, stale."},
    "fetches": _COUNT | {"description": "Upstream calls made in the caller's turns, counting each attempt."},
    "waits": _COUNT | {"description": "Requests that waited in line for their answer, however briefly."},
    "refusals": _COUNT | {"description": "Requests rejected because no fetch was possible in time."},
    "failed": _COUNT | {"description": "Of `fetches`, those that failed."},
    "saved": _COUNT | {"description": "Fetches saved by caching and joining: the sum of `hits` and `joins`."},
    "watches": _COUNT | {"description": "Watches that were opened, including reconnections."},
    "watched_seconds": _COUNT
    | {"description": "The total time that watches were open: each adds 60 in a minute throughout which it is open."},
    "events": _COUNT | {"description": "Events sent to watches."},
    "resets": _COUNT | {"description": "Of these, `reset`: a watch that could not be resumed was restarted."},
}
_MINUTE_USAGE: Json = {"start": _INSTANT, "used": {"$ref": "#/components/schemas/Spent"}}
_HOUR_USAGE: Json = {"start": _INSTANT, "used": {"$ref": "#/components/schemas/Spent"}}
_CALLER_USAGE: Json = {"caller": {"type": "string"}, "used": {"$ref": "#/components/schemas/Spent"}}
_USAGE: Json = {
    "call": {"$ref": "#/components/schemas/CallKind"},
    "caller": {"description": "The caller whose usage this is; null for all callers."},
    "redis": {"enum": ["ok", "away"], "description": "If `away`, the other members show only what one replica knows."},
    "since": _INSTANT | {"description": "The start of the first minute or hour."},
    "until": _INSTANT | {"description": "The present."},
    "total": {"$ref": "#/components/schemas/Spent", "description": "The total of all `callers`."},
    "callers": {
        "type": "array",
        "items": {"$ref": "#/components/schemas/CallerUsage"},
        "description": "All callers with any usage, by name. `~renewal` refreshes stale blocks, `~ahead` prefetches.",
    },
    "minutes": {
        "type": "array",
        "maxItems": 60,
        "items": {"$ref": "#/components/schemas/MinuteUsage"},
        "description": "All callers combined, for each minute of the last hour, without gaps; the last minute is still "
        "in progress.",
    },
    "hours": {
        "type": "array",
        "maxItems": 168,
        "items": {"$ref": "#/components/schemas/HourUsage"},
        "description": "All callers combined, for each hour (UTC), without gaps, if `since` is more than an hour ago; "
        "otherwise empty.",
    },
}


def schemas() -> Json:
    """Return all schemas by name. Raise ValueError if a schema does not match the struct that it describes."""
    page = _object(Envelope, _PAGE)
    page["properties"]["tasks"] = {"type": "array", "items": {"$ref": "#/components/schemas/Task"}}
    page["required"].append("tasks")
    return {
        "App": _object(AppInfo, {"name": {"type": "string"}, "region": {"type": ["string", "null"]}}),
        "AppList": _object(AppListBody, {"apps": {"type": "array", "items": {"$ref": "#/components/schemas/App"}}})
        | {"description": "The apps that a caller may read."},
        "Budget": _object(BudgetBody, _BUDGET)
        | {
            "description": "An app's calls of one kind: how many are free, which callers are waiting for them, and "
            "which have used them."
        },
        "CallKind": _CALL,
        "CallerUsage": _object(CallerUsageBody, _CALLER_USAGE),
        "Contract": {"type": "object", "description": "An OpenAPI document."},
        "Dropped": _object(DroppedBody, _DROPPED),
        "End": _object(StreamEnd, _END),
        "Fault": _object(Fault, _FAULT),
        "HourUsage": _object(HourUsageBody, _HOUR_USAGE),
        "LastLine": _object(LastLine, {"end": {"$ref": "#/components/schemas/End"}}),
        "Liveness": _object(LivenessBody, {"live": {"const": True}}),
        "MinuteUsage": _object(MinuteUsageBody, _MINUTE_USAGE),
        "Page": page | {"description": "One slice of a list, with the query that it answers."},
        "Pause": _object(PauseBody, _PAUSE),
        "Problem": _object(Problem, _PROBLEM),
        "Readiness": _object(ReadinessBody, _READY),
        "RecentUpstreamCalls": _object(
            RecentUpstreamCallsBody,
            {name: {"$ref": "#/components/schemas/UpstreamCalls"} for name in ("last_minute", "last_hour")},
        ),
        "Share": _object(ShareBody, _SHARE),
        "Slots": _object(SlotsBody, _SLOTS),
        "Sort": _SORT,
        "Spent": _object(SpentBody, _SPENT),
        "Task": _object(Task, _TASK),
        "UpstreamCalls": _object(UpstreamCallsBody, _UPSTREAM_CALLS),
        "Usage": _object(UsageBody, _USAGE),
        "Used": _object(UsedBody, _USED),
        "Version": _object(VersionBody, {"name": {"const": "taskgate"}, "version": {"type": "string"}}),
        "Waiting": _object(
            WaitingBody,
            {
                "count": _COUNT | {"description": "Blocks waiting for a turn."},
                "oldest_seconds": {"type": "number", "minimum": 0},
            },
        ),
        "WorstWindow": _object(WorstWindowBody, _WORST_WINDOW),
    }


def _object(struct: type[msgspec.Struct], texts: Json) -> Json:
    """Return the struct's schema as derived by msgspec, with the additions in `texts` merged into its members.

    A member of `texts` that defines a type of its own (`_SHAPES`) replaces the derived schema. The description is the
    first line of the struct's docstring.
    """
    _, made = msgspec.json.schema_components([struct], ref_template="{name}")
    omits = struct.__struct_config__.omit_defaults
    properties = made[struct.__name__]["properties"]
    derived = {name: _normalize(member, is_null_sent=not omits) for name, member in properties.items()}
    if unknown := set(texts) - set(derived):
        raise ValueError(f"{struct.__name__} has no {', '.join(sorted(unknown))}")
    return {
        "type": "object",
        "description": (struct.__doc__ or "").split("\n", maxsplit=1)[0],
        "properties": {name: _merge(member, texts.get(name, {})) for name, member in derived.items()},
        "required": [each.encode_name for each in msgspec.structs.fields(struct) if each.required or not omits],
    }


_SHAPES = frozenset(("$ref", "oneOf", "const", "items", "additionalProperties"))
_RENAMED = {"AppInfo": "App", "StreamEnd": "End"}
"""Names in the contract of structs that are not called so, with or without `Body`."""


def _merge(derived: Json, text: Json) -> Json:
    return dict(text) if _SHAPES & set(text) else derived | text


def _normalize(member: Json, *, is_null_sent: bool) -> Json:
    """Return a member's schema without its default, with `null` among its types and references renamed.

    If defaults are omitted from responses, null is never sent and so is not listed.
    """
    member = {key: value for key, value in member.items() if key != "default"}
    if "$ref" in member:
        name = member["$ref"]
        return {"$ref": f"#/components/schemas/{_RENAMED.get(name, name.removesuffix('Body'))}"}
    if "items" in member:
        return member | {"items": _normalize(member["items"], is_null_sent=is_null_sent)}
    options: list[Json] = member.get("anyOf", [])
    if len(options) == 2 and options[1] == {"type": "null"} and "type" in options[0]:
        one = options[0]
        return one | {"type": [one["type"], "null"]} if is_null_sent else one
    return {"type": "string"} | member if "enum" in member else member
