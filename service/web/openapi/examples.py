"""Examples for the contract, produced by the same code as real responses."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from service.model import errors
from service.model.budgets import (
    AppCondition,
    BudgetView,
    CallerStanding,
    CallResults,
    Counts,
    RecentCalls,
    UsageByCaller,
    UsageCounts,
    UsageInPeriod,
    UsageView,
    WorstWindows,
)
from service.model.pages import Chunk, Page, Source
from service.model.queries import At, Query, Range, Slice, Sort
from service.model.streams import TaskFilter
from service.model.tasks import Task
from service.watch.changes import TaskRemoved
from service.watch.events import IdentifiedEvent, ListedEvent, SyncedEvent, WatchPosition, event_id
from service.watch.versions import watched_task
from service.web.page_body import render_page
from service.web.problems.from_errors import (
    Problem,
    ProblemDetails,
    details_of,
    details_of_status,
    problem_of,
    problem_response,
)
from service.web.problems.types import ProblemType
from service.web.routes.budget import budget_body
from service.web.routes.usage import usage_body
from service.web.server_sent_events import encode_event
from service.web.stream import StreamProgress

REQUEST_ID = "0f2a6c1e9b7d4c55a3e8f1d2b4c60718"

ERRORS: tuple[Exception, ...] = (
    errors.BadRequest(
        errors.Fault(parameter="limit", detail="must be an integer from 1 to 100, digits only"),
        errors.Fault(parameter="page", detail="is not a parameter of this resource"),
    ),
    errors.Unauthenticated(),
    errors.KeysUnavailable(),
    errors.NotAllowed("this caller may not read this app"),
    errors.UnknownApp(),
    errors.UnknownTask(),
    errors.WaitTooLong(place=42, estimate_s=12.4, patience_s=10.0),
    errors.LineFull(bound=1000, retry_after_s=30.0),
    errors.TooManyWatchers(bound=1000),
    errors.RangeTooWide(total=2340, bound=1000),
    errors.NothingStored(),
    errors.ShuttingDown(),
    errors.Refused("the upstream is not called at this moment", retry_after_s=2.0),
    errors.StoreUnavailable("unreachable"),
    errors.UpstreamTimeout("no answer within 8 s", app="shop"),
    errors.UpstreamUnreachable("no connection could be made", app="shop"),
    errors.UpstreamBroken("the answer is not JSON", app="shop"),
    errors.UpstreamHTTPStatus(502, app="shop"),
    errors.QueryRefused(app="shop", code=90104, text="time range exceeded", advice=""),
    errors.CallsStopped(
        app="shop",
        code=70013,
        text="identifier mismatch",
        advice="The administrator of this app is configured wrongly.",
        stopped_for_s=60.0,
    ),
    errors.Throttled(app="shop", code=60007, text="calling too frequently", advice=""),
    errors.UpstreamRefused(app="shop", code=71000, text="unknown", advice=""),
    errors.UpstreamError("the call failed", app="shop"),
)
"""One error for each problem type that maps from an error."""

_TASK = msgspec.json.encode(
    Task(
        id=1000001294,
        type="tag",
        status="dispatched",
        title="Spring sale #1294",
        description="Up to 40% off until Sunday",
        created_at="2025-04-30T13:09:11Z",
        scheduled_at="2025-05-01T02:53:22Z",
        dispatched=True,
        dispatch_error=None,
        push_task_id="3b9acf0e_53724e01_00000000681220f7_6812e222",
        content=msgspec.Raw(
            b'{"From_Account":"administrator","MsgRandom":4171513298,"Condition":{"TagsAnd":["region:eu"]},'
            b'"OfflinePushInfo":{"Title":"Spring sale","Desc":"Up to 40% off until Sunday"}}'
        ),
    )
)
"""The first sandbox task that matches the example's query, on 1 June 2025."""


def page_example() -> Any:
    """Return a page with the first task of a query."""
    since_s, until_s, fetched_s = (int(datetime(2025, month, 1, tzinfo=UTC).timestamp()) for month in (5, 7, 6))
    page = Page(
        query=Query(
            app="shop", since=At(epoch_s=since_s), until=At(epoch_s=until_s), sort=Sort.SCHEDULED, keyword="sale"
        ),
        slice=Slice(offset=0, limit=1),
        range=Range(since_s=since_s, until_s=until_s),
        total=83,
        fetched_at_ms=fetched_s * 1000,
        lifetime_s=15.0,
        body=_TASK,
        source=Source.HIT,
    )
    return msgspec.json.decode(render_page(page, path="/tasks", link_query="").body)


def task_example() -> Any:
    """Return one task."""
    return msgspec.json.decode(_TASK)


def stream_examples() -> tuple[str, str]:
    """Return a complete stream, and one that ended before its second block."""
    first = Chunk(
        records=(_TASK,),
        total=1,
        following=None,
        is_short=False,
        fetched_at_ms=1_748_736_000_000,
        range=Range(since_s=1_746_144_000, until_s=1_751_328_000),
        lifetime_s=15.0,
        source=Source.HIT,
    )
    whole, begun = StreamProgress(first, TaskFilter()), StreamProgress(first, TaskFilter())
    problem = problem_of(
        details_of(errors.WaitTooLong(place=42, estimate_s=12.4, patience_s=10.0)), request_id=REQUEST_ID
    )
    ended = whole.lines(first, part=0) + whole.last_line(problem=None, following=None)
    more = replace(first, total=240, following=100)
    early = begun.lines(more, part=0) + begun.last_line(problem=problem, following="/tasks?app=shop&offset=100")
    return ended.decode(), early.decode()


def _problem(error: Exception, *, is_last: bool) -> Problem:
    del is_last
    return problem_of(details_of(error), request_id=REQUEST_ID)


def watch_example() -> str:
    """Return the beginning of a watch: one task, the end of the initial list, and a change."""
    task = watched_task(_TASK, sort=Sort.SCHEDULED, known={})
    tag, version = "536349a9", "7ed14eeec6e0cc14"
    removed = TaskRemoved(id=task.labels.id, status="dispatching", reason="filter")
    position = WatchPosition(target="90c3a1d2b4e5f607", base=version, done=1)
    events = (
        IdentifiedEvent(id=event_id(tag, None), event=ListedEvent(task=task)),
        IdentifiedEvent(
            id=event_id(tag, WatchPosition(target=version)),
            event=SyncedEvent(count=1, total=1, as_of_ms=1_748_736_000_000, age_s=0.2),
        ),
        IdentifiedEvent(id=event_id(tag, position), event=removed),
    )
    return b"".join(encode_event(each, problem=_problem) for each in events).decode()


def budget_example() -> Any:
    """Return the budget as shown to a caller that is not an operator."""
    own = UsageCounts(minute=Counts(turns=21, joined=4), hour=Counts(turns=310, joined=57))
    others = UsageCounts(minute=Counts(turns=262, joined=31), hour=Counts(turns=9104, joined=1240))
    view = BudgetView(
        app="shop",
        condition=AppCondition(state="serving", detail="Calls succeed."),
        recent=RecentCalls(
            minute=CallResults(ok=281, failed={"timeout": 2}),
            hour=CallResults(ok=9377, failed={"throttled": 4, "timeout": 33}),
            last_success_ms=1_748_736_000_000,
        ),
        redis_away=False,
        calls=5,
        window_s=1.0,
        free=0,
        pause_s=0.0,
        pause_reason="",
        worst=WorstWindows(minute=5, hour=5),
        callers=(CallerStanding(name="reports", waiting=2, oldest_s=0.41, tally=own),),
        others=CallerStanding(name=None, waiting=17, oldest_s=3.2, tally=others),
    )
    return msgspec.json.decode(msgspec.json.encode(budget_body(view)))


def usage_example() -> Any:
    """Return two minutes of usage as shown to a caller that is not an operator."""
    since_s = int(datetime(2025, 6, 1, 10, 0, tzinfo=UTC).timestamp())
    first = Counts(turns=5, joined=1, requests=180, hits=170, stale=2, waits=6, refusals=1)
    second = Counts(turns=3, joined=2, requests=64, hits=58, waits=4)
    view = UsageView(
        app="shop",
        only="reports",
        redis_away=False,
        since_s=since_s,
        until_s=since_s + 84,
        callers=(UsageByCaller(name="reports", counts=first + second),),
        minutes=(UsageInPeriod(start_s=since_s, counts=first), UsageInPeriod(start_s=since_s + 60, counts=second)),
    )
    return msgspec.json.decode(msgspec.json.encode(usage_body(view)))


def problem_example(problem_type: ProblemType) -> Any:
    """Return a problem of this type as it would be sent."""
    details = next((each for each in map(details_of, ERRORS) if each.type.slug == problem_type.slug), None)
    return msgspec.json.decode(problem_response(details or _bare(problem_type), request_id=REQUEST_ID).body)


def _bare(problem_type: ProblemType) -> ProblemDetails:
    details = details_of_status(problem_type.status)
    if details.type is not problem_type:
        raise ValueError(f"no example for problems of type {problem_type.slug}")
    return details
