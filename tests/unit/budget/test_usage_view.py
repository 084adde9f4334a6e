"""The last hour's usage as callers and operators see it."""

from service.budget.usage import usage_view
from service.model.budgets import Counts, UsageView, Use

NOW_S = 1_750_000_200 + 17
MINUTE = NOW_S // 60
COUNTED = {
    MINUTE: {"a": Counts(requests=1, hits=1), "b": Counts(requests=2)},
    MINUTE - 2: {"a": Counts(requests=4, turns=1)},
    MINUTE - 59: {"b": Counts(requests=8)},
    MINUTE - 60: {"b": Counts(requests=16)},
    MINUTE + 1: {"b": Counts(requests=32)},
}


def _view(only: str | None = None, *, since_s: int = 0) -> UsageView:
    return usage_view(COUNTED, app="shop", only=only, redis_away=False, since_s=since_s, now_s=NOW_S)


def test_an_hour_is_the_most_there_is() -> None:
    """Sixty minutes without gaps, and nothing of what is older or has yet to come."""
    view = _view()
    assert [part.start_s for part in view.minutes] == [60 * minute for minute in range(MINUTE - 59, MINUTE + 1)]
    assert (view.since_s, view.until_s) == (60 * (MINUTE - 59), NOW_S)
    assert view.callers == (
        Use(name="a", counts=Counts(requests=5, hits=1, turns=1)),
        Use(name="b", counts=Counts(requests=10)),
    )
    assert sum(part.counts.requests for part in view.minutes) == 15


def test_the_minute_asked_for_is_whole() -> None:
    """From the start of the minute that holds `since`."""
    view = _view(since_s=NOW_S - 125)
    assert [part.counts.requests for part in view.minutes] == [4, 0, 3]
    assert view.since_s == 60 * (MINUTE - 2)
    assert len(_view(since_s=NOW_S + 500).minutes) == 1


def test_one_caller_sees_one_caller() -> None:
    """Of others neither the name nor any sum."""
    view = _view("a")
    assert [use.name for use in view.callers] == ["a"]
    assert sum(part.counts.requests for part in view.minutes) == 5
    assert _view("nobody").callers == ()
