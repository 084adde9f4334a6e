"""Usage as callers and operators see it: of the last hour by minute, of the last week by hour."""

import pytest

from service.model.budgets import Counts, UsageByCaller, UsageView
from service.model.calls import CallKind
from service.usage.buckets import UsageBook
from service.usage.usage_view import is_by_hour, usage_view

NOW_S = 1_750_000_200 + 17
MINUTE = NOW_S // 60
COUNTED = {
    MINUTE: {"a": Counts(requests=1, hits=1), "b": Counts(requests=2)},
    MINUTE - 2: {"a": Counts(requests=4, turns=1)},
    MINUTE - 59: {"b": Counts(requests=8)},
    MINUTE - 60: {"b": Counts(requests=16)},
    MINUTE + 1: {"b": Counts(requests=32)},
}
HOUR = NOW_S // 3600
BY_HOUR = {
    HOUR: {"a": Counts(requests=9)},
    HOUR - 23: {"a": Counts(requests=10, hits=2), "b": Counts(requests=5)},
    HOUR - 167: {"b": Counts(requests=20)},
    HOUR - 168: {"b": Counts(requests=40)},
}


def _books(rows: dict[int, dict[str, Counts]]) -> dict[int, UsageBook]:
    return {number: UsageBook(rows=each) for number, each in rows.items()}


def _view(only: str | None = None, *, since_s: int = NOW_S - 3600, by_hour: bool = False) -> UsageView:
    hours = _books(BY_HOUR) if by_hour else None
    return usage_view(
        _books(COUNTED),
        hours,
        app="shop",
        kind=CallKind.GET,
        only=only,
        redis_away=False,
        since_s=since_s,
        now_s=NOW_S,
    )


def test_minutes_cover_an_hour_at_most() -> None:
    """Sixty minutes without gaps, and nothing older or in the future."""
    view = _view()
    assert [part.start_s for part in view.minutes] == [60 * minute for minute in range(MINUTE - 59, MINUTE + 1)]
    assert (view.since_s, view.until_s) == (60 * (MINUTE - 59), NOW_S)
    assert view.callers == (
        UsageByCaller(name="a", counts=Counts(requests=5, hits=1, turns=1)),
        UsageByCaller(name="b", counts=Counts(requests=10)),
    )
    assert sum(part.counts.requests for part in view.minutes) == 15


def test_the_first_minute_is_complete() -> None:
    """Usage starts at the beginning of the minute that contains `since`."""
    view = _view(since_s=NOW_S - 125)
    assert [part.counts.requests for part in view.minutes] == [4, 0, 3]
    assert view.since_s == 60 * (MINUTE - 2)
    assert len(_view(since_s=NOW_S + 500).minutes) == 1


def test_a_caller_sees_only_itself() -> None:
    """Neither the names nor the sums of others are shown."""
    view = _view("a")
    assert [use.name for use in view.callers] == ["a"]
    assert sum(part.counts.requests for part in view.minutes) == 5
    assert _view("nobody").callers == ()


@pytest.mark.parametrize(("ago_s", "by_hour"), [(0, False), (3600, False), (3601, True), (86_400, True)])
def test_usage_over_an_hour_back_is_by_hour(ago_s: int, by_hour: bool) -> None:
    """Minutes alone cover the last hour; earlier usage is listed by hour."""
    assert is_by_hour(NOW_S - ago_s, now_s=NOW_S) is by_hour


def test_hours_are_whole_and_without_gaps() -> None:
    """Usage starts at the hour that contains `since`; callers' totals cover all hours, and the minutes are those of
    the last hour."""
    view = _view(since_s=NOW_S - 23 * 3600, by_hour=True)
    assert [part.start_s for part in view.hours] == [3600 * hour for hour in range(HOUR - 23, HOUR + 1)]
    assert view.since_s == 3600 * (HOUR - 23)
    assert view.callers == (
        UsageByCaller(name="a", counts=Counts(requests=19, hits=2)),
        UsageByCaller(name="b", counts=Counts(requests=5)),
    )
    assert sum(part.counts.requests for part in view.hours) == 24
    assert view.minutes == _view().minutes
    assert _view().hours == ()


def test_hours_cover_a_week_at_most() -> None:
    """Nothing older is shown, and neither names nor sums of others."""
    view = _view(since_s=0, by_hour=True)
    assert len(view.hours) == 168
    assert sum(part.counts.requests for part in view.hours) == 44
    own = _view("a", since_s=0, by_hour=True)
    assert sum(part.counts.requests for part in own.hours) == 19
