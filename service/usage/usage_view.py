"""Callers' usage of an app, as visible to one caller, assembled from the store's minutes and hours. Pure."""

from collections.abc import Mapping

from service.model.budgets import Counts, UsageByCaller, UsageInPeriod, UsageView
from service.model.calls import CallKind
from service.usage.buckets import UsageBook
from service.usage.store import HOURS, MINUTES

_MINUTE_S = 60
_HOUR_S = 3600


def is_by_hour(since_s: int, *, now_s: int) -> bool:
    """Return whether `since_s` is too long ago for the minutes to cover it."""
    return since_s < now_s - _HOUR_S


def usage_view(
    minutes: Mapping[int, UsageBook],
    hours: Mapping[int, UsageBook] | None,
    *,
    app: str,
    kind: CallKind,
    only: str | None,
    redis_away: bool,
    since_s: int,
    now_s: int,
) -> UsageView:
    """Return the usage from `since_s` to now, for the caller `only` or for all callers.

    It starts with the minute of `since_s`, or with its hour if `hours` are given, as far as the store goes back.
    """
    by_minute = _periods(minutes, only, length_s=_MINUTE_S, kept=MINUTES, since_s=since_s, now_s=now_s)
    by_hour: tuple[tuple[int, Mapping[str, Counts]], ...] = ()
    if hours is not None:
        by_hour = _periods(hours, only, length_s=_HOUR_S, kept=HOURS, since_s=since_s, now_s=now_s)
    periods = by_hour or by_minute
    callers: dict[str, Counts] = {}
    for _, rows in periods:
        for name, counts in rows.items():
            callers[name] = callers.get(name, Counts()) + counts
    return UsageView(
        app=app,
        kind=kind,
        only=only,
        redis_away=redis_away,
        since_s=periods[0][0],
        until_s=now_s,
        callers=tuple(UsageByCaller(name=name, counts=counts) for name, counts in sorted(callers.items())),
        minutes=_uses(by_minute),
        hours=_uses(by_hour),
    )


def _periods(
    books: Mapping[int, UsageBook], only: str | None, *, length_s: int, kept: int, since_s: int, now_s: int
) -> tuple[tuple[int, Mapping[str, Counts]], ...]:
    """Return the start of each period and its visible rows, without gaps; at most `kept` periods."""
    last = now_s // length_s
    first = min(max(since_s // length_s, last - kept + 1), last)
    return tuple(
        (number * length_s, _seen(books.get(number, UsageBook()).rows, only)) for number in range(first, last + 1)
    )


def _seen(rows: Mapping[str, Counts], only: str | None) -> Mapping[str, Counts]:
    if only is None:
        return rows
    return {only: rows[only]} if only in rows else {}


def _uses(periods: tuple[tuple[int, Mapping[str, Counts]], ...]) -> tuple[UsageInPeriod, ...]:
    return tuple(UsageInPeriod(start_s=start_s, counts=sum(rows.values(), Counts())) for start_s, rows in periods)
