"""`GET /usage`: an app's usage by caller over an hour, a day or a week, and calls saved by caching and joining."""

from collections.abc import Callable
from typing import Any, Literal

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler

from service.model.budgets import Counts, UsageView
from service.model.calls import CallKind
from service.model.errors import Fault, NotAllowed
from service.model.queries import FromNow, Moment, parse_moment, rfc3339
from service.web.budget_parameters import call_parameter
from service.web.identify import identify
from service.web.interfaces import Callers, GatewayAPI
from service.web.parameters import MOMENT_PATTERN, Example, Parameter, app_parameter, resolve_app
from service.web.query_string import read_query_string
from service.web.responses import Response, json_response

PATH = "/usage"
_HOUR_S = 3600
_AN_HOUR_AGO = FromNow(offset_s=-_HOUR_S)
_CALLER_MAX = 128


class SpentBody(msgspec.Struct, frozen=True, kw_only=True):
    """Requests for tasks, their outcomes, the calls that they used and saved, and watches."""

    requests: int
    hits: int
    joins: int
    stale: int
    fetches: int
    waits: int
    refusals: int
    failed: int
    saved: int
    watches: int
    watched_seconds: int
    events: int
    resets: int


class CallerUsageBody(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one caller."""

    caller: str
    used: SpentBody


class MinuteUsageBody(msgspec.Struct, frozen=True, kw_only=True):
    """The usage within one minute."""

    start: str
    used: SpentBody


class HourUsageBody(msgspec.Struct, frozen=True, kw_only=True):
    """The usage within one hour."""

    start: str
    used: SpentBody


class UsageBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body."""

    app: str
    call: CallKind
    caller: str | None
    redis: Literal["ok", "away"]
    since: str
    until: str
    total: SpentBody
    callers: tuple[CallerUsageBody, ...]
    minutes: tuple[MinuteUsageBody, ...]
    hours: tuple[HourUsageBody, ...]


def usage_parameters() -> tuple[Parameter[Any], ...]:
    """Return the parameters in the order of the contract."""
    return (
        app_parameter("Name of the app."),
        call_parameter("Which requests and calls to count."),
        Parameter(
            name="caller",
            read=_read_caller,
            description="The caller whose usage is returned; only operators may name another caller. "
            "Default: the requesting caller; for operators, all callers.",
            examples=(Example(value="reports", summary="the usage of the caller reports"),),
            schema={"type": "string", "minLength": 1, "maxLength": _CALLER_MAX},
        ),
        Parameter(
            name="since",
            read=parse_moment,
            description="Start of the period: an instant, a date, or a signed ISO 8601 duration from now, as for "
            "`since` of `/tasks`; at most a week ago. The result starts with its minute if that is at most an hour "
            "ago, otherwise with its hour.",
            examples=(
                Example(value="-PT15M", summary="the last 15 minutes"),
                Example(value="-P1D", summary="the last day"),
            ),
            schema={"type": "string", "pattern": MOMENT_PATTERN, "default": "-PT1H"},
        ),
    )


def usage_route(gateway: GatewayAPI, callers: Callers, *, clock: Callable[[], float]) -> HTTPRouteHandler:
    """Return the route. `clock` returns seconds since the epoch."""
    table = {parameter.name: parameter for parameter in usage_parameters()}
    names = {name.encode(): name for name in table}

    @get(PATH)
    async def show_usage(request: Request[Any, Any, Any]) -> Response:
        """Return the usage of one app as visible to the caller."""
        caller, context = await identify(request.scope, callers)
        texts, faults = read_query_string(request.scope["query_string"], known=names)
        values: dict[str, Any] = {}
        for name, text in texts.items():
            try:
                values[name] = table[name].read(text)
            except ValueError as exc:
                faults.append(Fault(parameter=name, detail=str(exc)))
        now_s = int(clock())
        since: Moment = values.get("since", _AN_HOUR_AGO)
        since_s = now_s + since.offset_s if isinstance(since, FromNow) else since.epoch_s
        if since_s > now_s:
            faults.append(Fault(parameter="since", detail="lies in the future"))
        context.app = app = resolve_app(values.get("app"), caller, faults=faults)
        only = values.get("caller") if caller.operator else caller.name
        if values.get("caller", only) != only:
            raise NotAllowed("only operators may see what other callers have used")
        kind = values.get("call", CallKind.LIST)
        view = await gateway.usage(app, caller=caller, only=only, since_s=since_s, now_s=now_s, kind=kind)
        return json_response(usage_body(view))

    return show_usage


def usage_body(view: UsageView) -> UsageBody:
    """Convert the view to the response body."""
    total = sum((use.counts for use in view.callers), Counts())
    return UsageBody(
        app=view.app,
        call=view.kind,
        caller=view.only,
        redis="away" if view.redis_away else "ok",
        since=rfc3339(view.since_s),
        until=rfc3339(view.until_s),
        total=_spent_body(total),
        callers=tuple(CallerUsageBody(caller=use.name, used=_spent_body(use.counts)) for use in view.callers),
        minutes=tuple(
            MinuteUsageBody(start=rfc3339(part.start_s), used=_spent_body(part.counts)) for part in view.minutes
        ),
        hours=tuple(HourUsageBody(start=rfc3339(part.start_s), used=_spent_body(part.counts)) for part in view.hours),
    )


def _spent_body(counts: Counts) -> SpentBody:
    return SpentBody(
        requests=counts.requests,
        hits=counts.hits,
        joins=counts.joined,
        stale=counts.stale,
        fetches=counts.turns,
        waits=counts.waits,
        refusals=counts.refusals,
        failed=counts.failed,
        saved=counts.hits + counts.joined,
        watches=counts.watches,
        watched_seconds=counts.watched_s,
        events=counts.events,
        resets=counts.resets,
    )


def _read_caller(text: str) -> str:
    if len(text) > _CALLER_MAX:
        raise ValueError(f"must have at most {_CALLER_MAX} characters")
    return text
