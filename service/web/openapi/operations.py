"""The operations of the contract, in the order in which the documentation shows them."""

from typing import Any

from service import __version__
from service.web.openapi.examples import (
    budget_example,
    page_example,
    stream_examples,
    usage_example,
    watch_example,
)
from service.web.openapi.fields import BUDGET, refer_fields, with_examples
from service.web.openapi.problems import (
    OF_APPS,
    OF_BUDGET,
    OF_CACHE,
    OF_OPEN,
    OF_PROBLEM,
    OF_TASKS,
    OF_USAGE,
    WAITED,
    refer_problems,
)
from service.web.openapi.schemas import Json
from service.web.parameters import NDJSON, Parameter, app_parameter, task_parameters
from service.web.problems.types import KINDS, ProblemType
from service.web.routes.problems import kinds_html, kinds_text
from service.web.routes.usage import usage_parameters
from service.web.server_sent_events import EVENT_STREAM
from service.web.settings import default_web_settings

_MOMENT = ("ETag", "Age", "Vary", "CacheStatus", "PreferenceApplied", "ServerTiming")
_SHOWN = ("Vary", "ContentSecurityPolicy")
_FILE = ("ETag", *_SHOWN, "ReferrerPolicy")

_LIST_TASKS = """One slice of an app's scheduled push tasks, or with `Accept: application/x-ndjson` all of them.

**Freshness.** Answers are kept and shared among callers. `Age` tells how old one is, `Cache-Status` where it came from.
Send `Cache-Control` to ask for a fresher answer or to accept an older one, and `If-None-Match` to be spared a body that
you hold already.

**Patience.** The upstream may be called only a few times a second. Who needs a call waits in a line that is fair among
callers, up to `Prefer: wait=SECONDS`. A turn that would come too late is refused at once, with `Retry-After` and the
expected wait, unless a stale answer may be served.

**Paging.** Follow `Link`. Slices are cut from larger blocks, so the next one is mostly there already.

**Filters.** `status` and `type` take one value or several with commas between them. `total`, `offset`, `limit` and
`Link` then count the tasks that pass, over the whole range; a page whose range holds too many tasks to look through is
422 `range-too-wide`. `consistent` is false if the list changed between the blocks that a page was made of.

**Whole lists.** With `Accept: application/x-ndjson` all tasks from `offset` on are streamed, one JSON object a line, as
they come in. Each block that has to be fetched waits for a turn of its own, up to
the patience, so a long list takes its time and delays nobody. The last line is `{"end": {...}}`: it says whether the
list is complete, whether it was seen to change meanwhile, and where to go on. A stream without it was cut off. If the
operators have set the longest range that the upstream accepts, pages and watches of longer ones are refused; a stream
reads them in parts, one after the other, and leaves `X-Total-Count` to the last line.

**Watching.** With `Accept: text/event-stream` the list is followed as server-sent events: first each task as it is
(`task`), then `synced`, then `added`, `changed` and `removed` as it happens, each round closed by a `synced` that says
how old the list is. All watchers of a list share its calls, so watching costs less than polling. A client that
reconnects with `Last-Event-ID`, at any replica, is sent what has changed since."""


_GET_BUDGET = """The live budget: slots, pause, line, and what was used in the last minute and hour, over all replicas.

A caller sees itself by name and all others together; operators see everybody by name. Asking costs no call. Who waits
is told as it was within the last quarter of a second, what was used within the last second or two."""
_GET_USAGE = """Requests, what they cost and what was spared, by caller and time, over all replicas.

Of the last hour unless `since` asks for another time: by minute up to an hour back, by hour up to a week back.

A caller sees itself; operators see everybody, or with `caller` one. Asking costs no call. What was used is told as it
was within the last second or two."""


def paths() -> Json:
    """Return all path items by path."""
    return {
        "/tasks": {"get": _list_tasks()},
        "/apps": {"get": _list_apps()},
        "/budget": {"get": _get_budget()},
        "/usage": {"get": _get_usage()},
        "/cache": {"delete": _drop_blocks()},
        "/problems": {
            "get": _open(
                "listProblems",
                "Problems",
                "All types of problems",
                "What each means and what to do.",
                _text(*KINDS.values()),
                *_SHOWN,
            )
        },
        "/problems/{name}": {"get": _show_problem()},
        "/livez": {
            "get": _open(
                "getLiveness",
                "State",
                "Whether the process answers",
                "Touches nothing else.",
                _json("Liveness", {"live": True}),
            )
        },
        "/readyz": {"get": _readyz()},
        "/version": {
            "get": _open(
                "getVersion",
                "State",
                "Name and version",
                "What runs here.",
                _json("Version", {"name": "taskgate", "version": __version__}),
            )
        },
        "/openapi.json": {"get": _get_contract()},
    }


def _list_tasks() -> Json:
    fields = ("AcceptEncoding", "CacheControl", "IfNoneMatch", "LastEventID", "Prefer", "RequestId")
    return {
        "operationId": "listTasks",
        "tags": ["Tasks"],
        "summary": "List scheduled push tasks",
        "description": _LIST_TASKS,
        "parameters": [
            *(_query_parameter(parameter) for parameter in task_parameters(default_web_settings())),
            *({"$ref": f"#/components/parameters/{name}"} for name in fields),
        ],
        "security": [{"key": []}],
        "responses": {
            "200": {
                "description": "The slice, or the stream; all fields but `X-Total-Count`, `Vary`, `Preference-Applied` "
                "and the budget's are a page's.",
                "headers": refer_fields(*_MOMENT, *BUDGET, "Link", "TotalCount", "ContentEncoding"),
                "content": _json("Page", page_example()) | _stream() | _watch(),
            },
            "304": {"description": "The caller holds this slice already.", "headers": refer_fields(*_MOMENT, *BUDGET)},
            **refer_problems(OF_TASKS, *WAITED),
        },
    }


def _list_apps() -> Json:
    example = {"apps": [{"name": "shop", "region": "singapore"}]}
    return {
        "operationId": "listApps",
        "tags": ["Tasks"],
        "summary": "List the apps that you can read",
        "description": "Names, for the parameter `app`, and regions; null where an app has an address of its own.",
        "parameters": [{"$ref": "#/components/parameters/RequestId"}],
        "security": [{"key": []}],
        "responses": {
            "200": {"description": "The apps.", "headers": refer_fields(), "content": _json("AppList", example)},
            **refer_problems(OF_APPS),
        },
    }


def _get_budget() -> Json:
    return {
        "operationId": "getBudget",
        "tags": ["Tasks"],
        "summary": "Show an app's state and budget",
        "description": _GET_BUDGET,
        "parameters": [
            _query_parameter(app_parameter("Name of the app.")),
            {"$ref": "#/components/parameters/RequestId"},
        ],
        "security": [{"key": []}],
        "responses": {
            "200": {
                "description": "The budget.",
                "headers": refer_fields(),
                "content": _json("Budget", budget_example()),
            },
            **refer_problems(OF_BUDGET),
        },
    }


def _get_usage() -> Json:
    return {
        "operationId": "getUsage",
        "tags": ["Tasks"],
        "summary": "Show who used an app's calls",
        "description": _GET_USAGE,
        "parameters": [
            *(_query_parameter(parameter) for parameter in usage_parameters()),
            {"$ref": "#/components/parameters/RequestId"},
        ],
        "security": [{"key": []}],
        "responses": {
            "200": {"description": "The usage.", "headers": refer_fields(), "content": _json("Usage", usage_example())},
            **refer_problems(OF_USAGE),
        },
    }


def _drop_blocks() -> Json:
    app = task_parameters(default_web_settings()).app
    text = "Name of the app whose blocks are dropped."
    return {
        "operationId": "dropBlocks",
        "tags": ["State"],
        "summary": "Drop all that is stored of an app",
        "description": "For operators. Drops the app's blocks in Redis, and within a second in the memory of every "
        "replica; calls that are under way are made again. Where Redis is away, 503: then only the replica that "
        "answers has forgotten.",
        "parameters": [
            {
                "name": app.name,
                "in": "query",
                "required": True,
                "description": with_examples(text, app.examples),
                "schema": app.schema | {"examples": [example.value for example in app.examples]},
            },
            {"$ref": "#/components/parameters/RequestId"},
        ],
        "security": [{"key": []}],
        "responses": {
            "200": {
                "description": "What was dropped.",
                "headers": refer_fields(),
                "content": _json("Dropped", {"app": "shop", "dropped": 120}),
            },
            **refer_problems(OF_CACHE),
        },
    }


def _show_problem() -> Json:
    text = _text(KINDS["wait-too-long"])
    operation = _open("getProblem", "Problems", "One type of problem", "What it means and what to do.", text, *_SHOWN)
    operation["parameters"].insert(
        0,
        {
            "name": "name",
            "in": "path",
            "required": True,
            "description": "The last part of the problem's `type`.",
            "schema": {"type": "string"},
            "examples": {"patience": {"value": "wait-too-long", "summary": "a wait that was refused"}},
        },
    )
    operation["responses"] = dict(sorted({**operation["responses"], **refer_problems(OF_PROBLEM)}.items()))
    return operation


def _readyz() -> Json:
    ready = {"ready": True, "redis": "ok", "apps_ok": 2, "apps_total": 2}
    operation = _open(
        "getReadiness",
        "State",
        "Whether requests can be served",
        "Asks nobody: tells what is known.",
        _json("Readiness", ready),
    )
    unready = {"ready": False, "redis": "away", "apps_ok": 0, "apps_total": 2}
    operation["responses"]["503"] = {
        "description": "Send requests elsewhere.",
        "headers": refer_fields(),
        "content": _json("Readiness", unready),
    }
    return operation


def _get_contract() -> Json:
    example = {"openapi": "3.1.0", "info": {"title": "Taskgate", "version": __version__}, "paths": {}}
    operation = _open(
        "getContract",
        "Contract",
        "This document",
        "The contract, as OpenAPI 3.1.",
        _json("Contract", example),
        *_FILE,
        "ContentEncoding",
    )
    operation["parameters"][:0] = [
        {"$ref": f"#/components/parameters/{name}"} for name in ("AcceptEncoding", "IfNoneMatch")
    ]
    unchanged = {"304": {"description": "The caller holds this document already.", "headers": refer_fields(*_FILE)}}
    operation["responses"] = dict(sorted({**operation["responses"], **unchanged}.items()))
    return operation


def _open(operation_id: str, tag: str, summary: str, description: str, content: Json, *fields: str) -> Json:
    """Return an operation that needs no API key."""
    return {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "description": f"{description} Needs no key.",
        "parameters": [{"$ref": "#/components/parameters/RequestId"}],
        "security": [],
        "responses": {
            "200": {"description": summary + ".", "headers": refer_fields(*fields), "content": content},
            **refer_problems(OF_OPEN),
        },
    }


def _query_parameter(parameter: Parameter[Any]) -> Json:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": with_examples(parameter.description, parameter.examples),
        "schema": parameter.schema | {"examples": [example.value for example in parameter.examples]},
    }


def _json(schema: str, example: object) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}, "example": example}}


def _stream() -> Json:
    """Return the media type object of newline-delimited JSON; to JSON Schema it is text with one value per line."""
    each: Json = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in ("Task", "LastLine")]}
    schema = {
        "type": "string",
        "description": "Lines that end in a line feed: a task each, and at the end how the stream ended.",
        "contentMediaType": NDJSON,
        "contentSchema": each,
    }
    ended, refused = stream_examples()
    return {
        NDJSON: {
            "schema": schema,
            "examples": {
                "complete": {"summary": "A whole list of one task", "value": ended},
                "incomplete": {"summary": "A stream that ended early, and where to go on", "value": refused},
            },
        }
    }


def _watch() -> Json:
    """Return the media type object of server-sent events, which OpenAPI 3.1 can only describe as text."""
    schema = {
        "type": "string",
        "description": "Events, each with `id`, `event` and `data`: `task` and `added` (a Task), `changed` (the names "
        "of the fields, and the Task), `removed` (id, last status, and a reason: `deleted`, `filter` or `range`), "
        "`synced` (count, total, as_of, age_seconds), `stale` (renewing fails: as_of, problem), `reset` (a whole list "
        "follows), `end` (problem). Comments keep the connection in use.",
        "contentMediaType": EVENT_STREAM,
    }
    return {EVENT_STREAM: {"schema": schema, "example": watch_example()}}


def _text(*kinds: ProblemType) -> Json:
    """Return the media type objects of problem type descriptions: plain text for programs, HTML for browsers."""
    texts = {"text/plain": kinds_text(kinds), "text/html": kinds_html(kinds)}
    return {form: {"schema": {"type": "string"}, "example": text} for form, text in texts.items()}
