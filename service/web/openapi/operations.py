"""The operations of the contract, in the order in which the documentation shows them."""

from typing import Any

from service import __version__
from service.web.budget_parameters import call_parameter
from service.web.openapi.examples import budget_example, page_example, task_example, usage_example
from service.web.openapi.fields import BUDGET, field_refs, with_examples
from service.web.openapi.media_types import json_content, stream_content, text_content, watch_content
from service.web.openapi.problems import (
    OF_APPS,
    OF_BUDGET,
    OF_CACHE,
    OF_OPEN,
    OF_PROBLEM,
    OF_TASK,
    OF_TASKS,
    OF_USAGE,
    WAITED,
    problem_refs,
)
from service.web.openapi.schemas import Json
from service.web.parameters import Parameter, app_parameter, task_parameters
from service.web.problems.types import PROBLEM_TYPES
from service.web.routes.usage import usage_parameters
from service.web.settings import default_web_settings

_CACHED_FIELDS = ("ETag", "Age", "Vary", "CacheStatus", "PreferenceApplied", "ServerTiming", *BUDGET)
_DOCUMENT_FIELDS = ("Vary", "ContentSecurityPolicy")
_FILE_FIELDS = ("ETag", *_DOCUMENT_FIELDS, "ReferrerPolicy")

_LIST_TASKS = """One slice of an app's scheduled push tasks, or with `Accept: application/x-ndjson` all of them.

**Freshness.** Answers are cached and shared among callers. `Age` is the age of an answer, `Cache-Status` its source.
Send `Cache-Control` to request a fresher answer or to accept an older one, and `If-None-Match` to avoid receiving a
body that you already have.

**Patience.** The upstream may be called only a few times a second. Requests that need a call wait in a line that is
fair among callers, for up to `Prefer: wait=SECONDS`. A request whose turn would come too late is rejected at once, with
`Retry-After` and the expected wait, unless a stale answer may be served.

**Paging.** Follow `Link`. Slices are cut from larger blocks, so the next one is usually cached already.

**Filters.** `status` and `type` take one value, or several separated by commas. `total`, `offset`, `limit` and `Link`
then count the matching tasks over the whole range; if the range holds too many tasks to search, the answer is 422
`range-too-wide`. `consistent` is false if the list changed while the blocks of a page were fetched.

**Whole lists.** With `Accept: application/x-ndjson` all tasks from `offset` on are streamed as they arrive, one JSON
object per line. Each block that must be fetched waits for its own turn, for up to the patience, so a long list delays
no other caller. The last line is `{"end": {...}}`: it says whether the list is complete, whether it was seen to change
during the stream, and where to continue. A stream without it was cut off. If the operators have configured the longest
range that the upstream accepts, pages and watches of longer ranges are rejected; a stream reads them in consecutive
parts, and has the total in its last line instead of `X-Total-Count`.

**Watching.** With `Accept: text/event-stream` the list is sent as server-sent events and kept up to date: first every
task (`task`) and `synced`, then `added`, `changed` and `removed` as they happen, each round followed by a `synced` with
the age of the list. All watchers of a list share its calls, so watching costs less than polling. A client that
reconnects to any replica with `Last-Event-ID` receives the changes since that event."""


_GET_TASK = """One scheduled push task by its id, as in lists.

**Cost.** A task that is stored and fresh, by itself or as part of a list, costs no upstream call. Otherwise one call
fetches it. The upstream limits these calls separately, so they have their own budget and their own line, and delay no
list. All requests for the same task share one call.

**Freshness and patience** are as for lists: `Age`, `Cache-Status`, `ETag`, `Cache-Control`, `Prefer: wait=SECONDS`. A
task is stored longer once it is dispatched. A 404 `unknown-task` is cached for as long as a pending task is fresh."""

_GET_BUDGET = """The current budget: slots, pause, waiting callers, and usage in the last minute and hour, over all
replicas. Lists and single tasks have a budget each: see `call`.

A caller sees itself by name and all other callers combined; operators see every caller by name. No upstream call is
made. Waiting callers are at most a quarter of a second old, usage a second or two."""
_GET_USAGE = """Requests, the calls they used and the calls they saved, by caller and time, over all replicas.

Covers the last hour, or the time from `since`: by minute up to an hour back, by hour up to a week back.

A caller sees itself; operators see all callers, or one with `caller`. No upstream call is made. The figures are at most
a second or two old."""


def paths() -> Json:
    """Return all path items by path."""
    return {
        "/tasks": {"get": _list_tasks()},
        "/tasks/{id}": {"get": _get_task()},
        "/apps": {"get": _list_apps()},
        "/budget": {"get": _get_budget()},
        "/usage": {"get": _get_usage()},
        "/cache": {"delete": _drop_blocks()},
        "/problems": {
            "get": _public_operation(
                "listProblems",
                "Problems",
                "All types of problems",
                "What each type means, and how to respond to it.",
                text_content(*PROBLEM_TYPES.values()),
                *_DOCUMENT_FIELDS,
            )
        },
        "/problems/{name}": {"get": _show_problem()},
        "/livez": {
            "get": _public_operation(
                "getLiveness",
                "State",
                "Whether the process responds",
                "Checks nothing else.",
                json_content("Liveness", {"live": True}),
            )
        },
        "/readyz": {"get": _readyz()},
        "/version": {
            "get": _public_operation(
                "getVersion",
                "State",
                "Name and version",
                "The running release.",
                json_content("Version", {"name": "taskgate", "version": __version__}),
            )
        },
        "/openapi.json": {"get": _get_contract()},
    }


def _list_tasks() -> Json:
    return _operation(
        "listTasks",
        "Tasks",
        "List scheduled push tasks",
        _LIST_TASKS,
        parameters=[
            *(_query_parameter(parameter) for parameter in task_parameters(default_web_settings())),
            *_parameter_refs("AcceptEncoding", "CacheControl", "IfNoneMatch", "LastEventID", "Prefer", "RequestId"),
        ],
        responses={
            "200": _response(
                "The slice, or the stream. Pages have all of these fields except `X-Total-Count`; streams have "
                "`X-Total-Count`, `Vary`, `Preference-Applied` and the budget fields.",
                json_content("Page", page_example()) | stream_content() | watch_content(),
                *(*_CACHED_FIELDS, "Link", "TotalCount", "ContentEncoding"),
            ),
            "304": _response("The caller already has this slice.", None, *_CACHED_FIELDS),
            **problem_refs(OF_TASKS, *WAITED),
        },
    )


def _get_task() -> Json:
    task_id = {
        "name": "id",
        "in": "path",
        "required": True,
        "description": "The task's id.",
        "schema": {"type": "integer", "format": "int64", "minimum": 1, "examples": [1000001294]},
    }
    return _operation(
        "getTask",
        "Tasks",
        "Get one task",
        _GET_TASK,
        parameters=[
            task_id,
            _query_parameter(app_parameter("Name of the app that the task belongs to.")),
            *_parameter_refs("AcceptEncoding", "CacheControl", "IfNoneMatch", "Prefer", "RequestId"),
        ],
        responses={
            "200": _response("The task.", json_content("Task", task_example()), *_CACHED_FIELDS, "ContentEncoding"),
            "304": _response("The caller already has this task.", None, *_CACHED_FIELDS),
            **problem_refs(OF_TASK, *WAITED),
        },
    )


def _list_apps() -> Json:
    example = {"apps": [{"name": "shop", "region": "singapore"}]}
    return _operation(
        "listApps",
        "Tasks",
        "List the apps that you can read",
        "The names are values for the parameter `app`. The region is null if a base URL is configured instead.",
        parameters=_parameter_refs("RequestId"),
        responses={"200": _response("The apps.", json_content("AppList", example)), **problem_refs(OF_APPS)},
    )


def _get_budget() -> Json:
    return _operation(
        "getBudget",
        "Tasks",
        "Show an app's state and budget",
        _GET_BUDGET,
        parameters=[
            _query_parameter(app_parameter("Name of the app.")),
            _query_parameter(call_parameter("Which of the app's budgets.")),
            *_parameter_refs("RequestId"),
        ],
        responses={
            "200": _response("The budget.", json_content("Budget", budget_example())),
            **problem_refs(OF_BUDGET),
        },
    )


def _get_usage() -> Json:
    return _operation(
        "getUsage",
        "Tasks",
        "Show who used an app's calls",
        _GET_USAGE,
        parameters=[
            *(_query_parameter(parameter) for parameter in usage_parameters()),
            *_parameter_refs("RequestId"),
        ],
        responses={"200": _response("The usage.", json_content("Usage", usage_example())), **problem_refs(OF_USAGE)},
    )


def _drop_blocks() -> Json:
    app = app_parameter("")
    text = with_examples("Name of the app whose blocks are dropped.", app.examples)
    required_app = _query_parameter(app) | {"required": True, "description": text}
    return _operation(
        "dropBlocks",
        "State",
        "Drop all cached data of an app",
        "For operators. Drops the app's blocks in Redis and, within a second, in the memory of every replica; calls in "
        "progress are repeated. Returns 503 if Redis is unavailable: then only the replica that answered has dropped "
        "its blocks.",
        parameters=[required_app, *_parameter_refs("RequestId")],
        responses={
            "200": _response("The number of dropped values.", json_content("Dropped", {"app": "shop", "dropped": 120})),
            **problem_refs(OF_CACHE),
        },
    )


def _show_problem() -> Json:
    operation = _public_operation(
        "getProblem",
        "Problems",
        "One type of problem",
        "What it means, and how to respond to it.",
        text_content(PROBLEM_TYPES["wait-too-long"]),
        *_DOCUMENT_FIELDS,
    )
    operation["parameters"].insert(
        0,
        {
            "name": "name",
            "in": "path",
            "required": True,
            "description": "The last part of the problem's `type`.",
            "schema": {"type": "string"},
            "examples": {"patience": {"value": "wait-too-long", "summary": "a wait that was rejected"}},
        },
    )
    operation["responses"] = dict(sorted({**operation["responses"], **problem_refs(OF_PROBLEM)}.items()))
    return operation


def _readyz() -> Json:
    ready = {"ready": True, "redis": "ok", "apps_ok": 2, "apps_total": 2}
    operation = _public_operation(
        "getReadiness",
        "State",
        "Whether requests can be served",
        "Based on the replica's current knowledge; makes no calls.",
        json_content("Readiness", ready),
    )
    unready = {"ready": False, "redis": "away", "apps_ok": 0, "apps_total": 2}
    operation["responses"]["503"] = _response("Send requests elsewhere.", json_content("Readiness", unready))
    return operation


def _get_contract() -> Json:
    example = {"openapi": "3.1.0", "info": {"title": "Taskgate", "version": __version__}, "paths": {}}
    operation = _public_operation(
        "getContract",
        "Contract",
        "This document",
        "The contract, as OpenAPI 3.1.",
        json_content("Contract", example),
        *_FILE_FIELDS,
        "ContentEncoding",
    )
    operation["parameters"][:0] = _parameter_refs("AcceptEncoding", "IfNoneMatch")
    unchanged = {"304": _response("The caller already has this document.", None, *_FILE_FIELDS)}
    operation["responses"] = dict(sorted({**operation["responses"], **unchanged}.items()))
    return operation


def _operation(
    operation_id: str,
    tag: str,
    summary: str,
    description: str,
    *,
    parameters: list[Json],
    responses: Json,
    is_public: bool = False,
) -> Json:
    """Return an operation; it needs an API key unless `is_public`."""
    return {
        "operationId": operation_id,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "security": [] if is_public else [{"key": []}],
        "responses": responses,
    }


def _public_operation(operation_id: str, tag: str, summary: str, description: str, content: Json, *fields: str) -> Json:
    """Return an operation that needs no API key and has no parameters of its own."""
    return _operation(
        operation_id,
        tag,
        summary,
        f"{description} No key required.",
        parameters=_parameter_refs("RequestId"),
        responses={"200": _response(f"{summary}.", content, *fields), **problem_refs(OF_OPEN)},
        is_public=True,
    )


def _response(description: str, content: Json | None, *fields: str) -> Json:
    """Return a response with these header fields, and with a body unless `content` is None."""
    response = {"description": description, "headers": field_refs(*fields)}
    return response if content is None else response | {"content": content}


def _parameter_refs(*names: str) -> list[Json]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _query_parameter(parameter: Parameter[Any]) -> Json:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": with_examples(parameter.description, parameter.examples),
        "schema": parameter.schema | {"examples": [example.value for example in parameter.examples]},
    }
