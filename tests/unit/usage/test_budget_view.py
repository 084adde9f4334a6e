"""An app's budget as callers and operators see it."""

from service.budget.scheduler.interfaces import Board, Rank, Ticked, WaitingCount
from service.model.budgets import (
    AppCondition,
    BudgetView,
    CallerStanding,
    Counts,
    RecentCalls,
    UsageCounts,
    WorstWindows,
)
from service.model.callers import Caller
from service.model.calls import CallKind
from service.usage.budget_view import budget_view, parties

TALLIES = {
    "a": UsageCounts(minute=Counts(turns=1), hour=Counts(turns=10, joined=2)),
    "b": UsageCounts(minute=Counts(turns=2, joined=1), hour=Counts(turns=20, joined=5)),
    "~renewal": UsageCounts(hour=Counts(turns=3)),
}
BOARD = Board(
    virtual=0.0,
    held_ms=0,
    ranks=(
        Rank(caller="b", count=4, tag=1.0, weight=1.0, waited_ms=1500),
        Rank(caller="c", count=2, tag=2.0, weight=1.0, waited_ms=700),
    ),
)
TICKED = Ticked(turns=(), due_in_ms=None, free=3, pause_in_ms=250, pause_reason="throttled", board=BOARD)
WORST = WorstWindows(minute=4, hour=5)
HERE = (WaitingCount(caller="a", weight=1.0, count=1, waited_ms=100),)


def _view(name: str, *, operator: bool = False, ticked: Ticked | None = TICKED) -> BudgetView:
    caller = Caller(name=name, apps=frozenset(("shop",)), weight=1.0, waiting_max=9, wait_max_s=30, operator=operator)
    return budget_view(
        parties(ticked, HERE, TALLIES),
        app="shop",
        kind=CallKind.LIST,
        caller=caller,
        ticked=ticked,
        worst=WORST,
        recent=RecentCalls(),
        condition=AppCondition(state="serving", detail=""),
        redis_away=ticked is None,
        calls=5,
        window_s=1.0,
    )


def test_a_caller_sees_itself_and_the_rest_as_one() -> None:
    """No other name is shown; the sums and the oldest wait are those of all others."""
    view = _view("b")
    assert view.worst == WORST
    assert view.callers == (CallerStanding(name="b", waiting=4, oldest_s=1.5, tally=TALLIES["b"]),)
    assert view.others == CallerStanding(
        name=None,
        waiting=2,
        oldest_s=0.7,
        tally=UsageCounts(minute=Counts(turns=1), hour=Counts(turns=13, joined=2)),
    )
    assert (view.free, view.pause_s, view.pause_reason) == (3, 0.25, "throttled")


def test_a_caller_without_usage_is_listed() -> None:
    """A caller without any usage sees itself with zeros."""
    view = _view("new")
    assert view.callers == (CallerStanding(name="new"),)
    assert view.others.waiting == 6


def test_an_operator_sees_all_callers_by_name() -> None:
    """The operator itself comes first, then all others by name, so that none is left for the rest."""
    view = _view("c", operator=True)
    assert [party.name for party in view.callers] == ["c", "a", "b", "~renewal"]
    assert view.others == CallerStanding(name=None)


def test_without_a_board_only_this_replica_is_known() -> None:
    """If the scheduler is unavailable, slots and pause are unknown, and only this replica's waiting callers are
    listed."""
    view = _view("a", ticked=None)
    assert (view.free, view.pause_s, view.redis_away) == (None, None, True)
    assert (view.callers[0].waiting, view.callers[0].oldest_s) == (1, 0.1)
    assert view.others.waiting == 0
