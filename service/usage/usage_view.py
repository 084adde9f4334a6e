"""What callers used of an app, as one may see it, put together from the usage store's minutes and hours. Pure."""

from collections.abc import Mapping

from service.model.budgets import Counts, UsageView, Use, UseInPeriod
from service.usage.buckets import Book
from service.usage.store import HOURS, MINUTES

_MINUTE_S = 60
_HOUR_S = 3600


def is_by_hour(since_s: int, *, now_s: int) -> bool:
    """Whether this lies too far back to be told by minutes alone."""
    return since_s < now_s - _HOUR_S


def usage_view(
    minutes: Mapping[int, Book],
    hours: Mapping[int, Book] | None,
    *,
    app: str,
    only: str | None,
    redis_away: bool,
    since_s: int,
    now_s: int,
) -> UsageView:
    """From the minute of `since_s`, or where `hours` are given from its hour, as far as the store goes back, to now.

    Of `only` one caller, or of all.
    """
    by_minute = _periods(minutes, only, length_s=_MINUTE_S, kept=MINUTES, since_s=since_s, now_s=now_s)
    by_hour: tuple[tuple[int, Mapping[str, Counts]], ...] = ()
    if hours is not None:
        by_hour = _periods(hours, only, length_s=_HOUR_S, kept=HOURS, since_s=since_s, now_s=now_s)
    told = by_hour or by_minute
    callers: dict[str, Counts] = {}
    for _, rows in told:
        for name, counts in rows.items():
            callers[name] = callers.get(name, Counts()) + counts
    return UsageView(
        app=app,
        only=only,
        redis_away=redis_away,
        since_s=told[0][0],
        until_s=now_s,
        callers=tuple(Use(name=name, counts=counts) for name, counts in sorted(callers.items())),
        minutes=_uses(by_minute),
        hours=_uses(by_hour),
    )


def _periods(
    books: Mapping[int, Book], only: str | None, *, length_s: int, kept: int, since_s: int, now_s: int
) -> tuple[tuple[int, Mapping[str, Counts]], ...]:
    """The start of each period and the rows that may be seen, without gaps; of `kept` periods at most."""
    last = now_s // length_s
    first = min(max(since_s // length_s, last - kept + 1), last)
    return tuple((number * length_s, _seen(books.get(number, Book()).rows, only)) for number in range(first, last + 1))


def _seen(rows: Mapping[str, Counts], only: str | None) -> Mapping[str, Counts]:
    if only is None:
        return rows
    return {only: rows[only]} if only in rows else {}


def _uses(periods: tuple[tuple[int, Mapping[str, Counts]], ...]) -> tuple[UseInPeriod, ...]:
    return tuple(UseInPeriod(start_s=start_s, counts=sum(rows.values(), Counts())) for start_s, rows in periods)
