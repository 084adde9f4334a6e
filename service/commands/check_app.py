"""The calls of `taskgate check --call` for one app, and its findings in plain words."""

import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol, TypeVar

import msgspec

from service.http_client.connection import BeforeSend
from service.model.calls import CallKind
from service.model.errors import UpstreamError, UpstreamRefused
from service.model.queries import Query, Range, parse_moment, parse_until
from service.model.tasks import Listing, Task
from service.settings import Settings
from service.upstream.apps import UpstreamApp
from service.upstream.client import UpstreamClient
from service.upstream.codes import CodeKind, kind_of
from service.upstream.verdicts import explain

MARGIN_S = 120
"""How far outside a range a time must lie to count, in seconds: clocks differ, and relative ranges move."""
UNKNOWN_ID = 1
"""An id that no task is likely to have: the upstream's own have ten digits."""

T = TypeVar("T")
CheckedCall = Callable[[BeforeSend], Awaitable[T]]
"""One call; awaits its argument right before it is sent."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing found about an app, good or not."""

    is_good: bool
    text: str


class NotCalled(Exception):
    """The call was not made; the text says why."""


class MakeCall(Protocol):
    """Makes a call of one kind when it may be made."""

    async def __call__(self, kind: CallKind, call: CheckedCall[T]) -> T:
        """Return the call's result. Raise UpstreamError, StoreUnavailable or NotCalled."""
        ...


async def check_app(app: UpstreamApp, client: UpstreamClient, settings: Settings, make_call: MakeCall) -> list[Finding]:
    """Ask for a list, and if that succeeds for its first task and for an unknown one. Raise StoreUnavailable."""
    query = _query(app.name, settings)

    async def fetch(before_send: BeforeSend) -> Listing:
        range_ = query.range_at(time.time(), align_s=settings.cache.align_s)
        want = settings.cache.block_size
        return await client.fetch(app, query, range_, offset=0, want=want, before_send=before_send)

    try:
        listing = await make_call(CallKind.LIST, fetch)
    except UpstreamError as exc:
        return [Finding(is_good=False, text=explain(exc))]
    except NotCalled as exc:
        return [Finding(is_good=False, text=str(exc))]
    return [_list_finding(listing, query, settings), await _tasks_finding(app, client, listing, make_call)]


async def _tasks_finding(app: UpstreamApp, client: UpstreamClient, listing: Listing, make_call: MakeCall) -> Finding:
    """Ask for the first task of the list, if it has any, and for an unknown one."""

    async def get(task_id: int) -> Task | None:
        return await make_call(CallKind.GET, lambda hold: client.get_task(app, task_id, before_send=hold))

    try:
        for task in listing.tasks[:1]:
            if await get(task.id) is None:
                return _task_finding("the id of a listed task is unknown", is_good=False)
        unknown = await get(UNKNOWN_ID)
    except UpstreamRefused as exc:
        if kind_of(exc.code) not in (CodeKind.UNKNOWN, CodeKind.CALLER_FAULT):
            return _task_finding(explain(exc), is_good=False)
        text = f"code {exc.code} ({exc.text or 'no text'})"
        advice = f"if this code means an unknown task, add {exc.code} to upstream.unknown_task_codes"
        return _task_finding(f"warning: the upstream refused a call by task id with {text}; {advice}", is_good=True)
    except (UpstreamError, NotCalled) as exc:
        return _task_finding(explain(exc) if isinstance(exc, UpstreamError) else str(exc), is_good=False)
    return _task_finding("ok" if unknown is None else f"ok; task {UNKNOWN_ID} exists", is_good=True)


def _task_finding(text: str, *, is_good: bool) -> Finding:
    return Finding(is_good=is_good, text=f"get_sched_task: {text}")


def _list_finding(listing: Listing, query: Query, settings: Settings) -> Finding:
    got, expected = len(listing.tasks) + listing.left_out, min(settings.cache.block_size, listing.total)
    advice = "" if got >= expected else f"; set cache.block_size to {got}: one call returns no more"
    remark = time_filter_remark(listing.tasks, query.range_at(time.time(), align_s=settings.cache.align_s))
    text = f"ok, {listing.total} tasks from {settings.query.since} to {settings.query.until}{advice}"
    return Finding(is_good=True, text=f"{text}; {remark}" if remark else text)


def _query(app: str, settings: Settings) -> Query:
    """Return the query of a caller without parameters."""
    return Query(app=app, since=parse_moment(settings.query.since), until=parse_until(settings.query.until))


def time_filter_remark(tasks: tuple[Task, ...], range_: Range) -> str:
    """Return a remark about an answer in the order of `scheduled_at`, empty if nothing can be concluded.

    The gateway documents that a range applies to the time named by `sort`. A task of the answer whose time lies outside
    the range proves that this time is not the one.
    """
    scheduled = _outside([task.scheduled_at for task in tasks], range_)
    created = _outside([task.created_at for task in tasks], range_)
    if scheduled and created:
        return "warning: since and until filter neither scheduled_at nor created_at, though sort is -scheduled_at"
    if scheduled:
        return "warning: since and until filter created_at, though sort is -scheduled_at: inform your callers"
    return "since and until filter the time that sort names" if created else ""


def _outside(times: list[str | None], range_: Range) -> int:
    """Return how many of the times lie outside; unknown ones don't count."""
    moments = [datetime.fromisoformat(time).timestamp() for time in times if time is not None]
    first_s, last_s = range_.since_s - MARGIN_S, range_.until_s + MARGIN_S
    return sum(not first_s <= moment <= last_s for moment in moments)
