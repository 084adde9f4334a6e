"""`GET /budget`: whether an app is served, how much of its budget is free, and which callers wait or used it."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from service.model.budgets import BudgetView, CallerStanding, CallResults, Counts, ServingState
from service.model.calls import CallKind
from service.model.queries import rfc3339
from service.web.budget_parameters import read_budget
from service.web.identify import identify
from service.web.interfaces import Callers, GatewayAPI
from service.web.responses import Response, json_response


class SlotsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The number of calls that may be made in any window, and of those that could be made immediately."""

    total: int
    free: int | None
    window_seconds: float


class WorstWindowBody(msgspec.Struct, frozen=True, kw_only=True):
    """The largest number of calls in one window of the clock; windows of one second are whole seconds."""

    last_minute: int
    last_hour: int


class PauseBody(msgspec.Struct, frozen=True, kw_only=True):
    """How long no call will be made, and why."""

    seconds: float
    reason: str | None


class WaitingBody(msgspec.Struct, frozen=True, kw_only=True):
    """The number of blocks being waited for, and the longest wait."""

    count: int
    oldest_seconds: float


class UsedBody(msgspec.Struct, frozen=True, kw_only=True):
    """Usage within a recent period."""

    turns: int
    joined: int


class ShareBody(msgspec.Struct, frozen=True, kw_only=True):
    """One caller's waiting blocks and usage; without a name, those of all callers not listed by name."""

    caller: str | None
    waiting: WaitingBody
    last_minute: UsedBody
    last_hour: UsedBody


class UpstreamCallsBody(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of the upstream calls within a period; `failed` by result."""

    ok: int
    failed: Mapping[str, int]


class RecentUpstreamCallsBody(msgspec.Struct, frozen=True, kw_only=True):
    """Upstream calls within the last minute and hour, over all replicas."""

    last_minute: UpstreamCallsBody
    last_hour: UpstreamCallsBody


class BudgetBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body."""

    app: str
    call: CallKind
    state: ServingState
    state_detail: str
    last_success_at: str | None
    calls: RecentUpstreamCallsBody
    redis: Literal["ok", "away"]
    slots: SlotsBody
    worst_window: WorstWindowBody
    pause: PauseBody | None
    callers: tuple[ShareBody, ...]
    others: ShareBody


def budget_route(gateway: GatewayAPI, callers: Callers) -> HTTPRouteHandler:
    """Return the route."""

    @get("/budget")
    async def show_budget(request: Request[Any, Any, Any]) -> Response:
        """Return one of an app's budgets as visible to the caller."""
        caller, context = await identify(request.scope, callers)
        app, kind = read_budget(request.scope["query_string"], caller=caller)
        context.app = app
        return json_response(budget_body(await gateway.budget(app, caller, kind)))

    return show_budget


def budget_body(view: BudgetView) -> BudgetBody:
    """Convert the view to the response body."""
    pause = (
        None if view.pause_s is None else PauseBody(seconds=round(view.pause_s, 3), reason=view.pause_reason or None)
    )
    success_ms = view.recent.last_success_ms
    return BudgetBody(
        app=view.app,
        call=view.kind,
        state=view.condition.state,
        state_detail=view.condition.detail,
        last_success_at=None if success_ms is None else rfc3339(success_ms // 1000),
        calls=RecentUpstreamCallsBody(
            last_minute=_upstream_calls_body(view.recent.minute), last_hour=_upstream_calls_body(view.recent.hour)
        ),
        redis="away" if view.redis_away else "ok",
        slots=SlotsBody(total=view.calls, free=view.free, window_seconds=view.window_s),
        worst_window=WorstWindowBody(last_minute=view.worst.minute, last_hour=view.worst.hour),
        pause=pause,
        callers=tuple(_share_body(row) for row in view.callers),
        others=_share_body(view.others),
    )


def _share_body(row: CallerStanding) -> ShareBody:
    return ShareBody(
        caller=row.name,
        waiting=WaitingBody(count=row.waiting, oldest_seconds=round(row.oldest_s, 3)),
        last_minute=_used_body(row.tally.minute),
        last_hour=_used_body(row.tally.hour),
    )


def _upstream_calls_body(results: CallResults) -> UpstreamCallsBody:
    return UpstreamCallsBody(ok=results.ok, failed=dict(results.failed))


def _used_body(counts: Counts) -> UsedBody:
    return UsedBody(turns=counts.turns, joined=counts.joined)
