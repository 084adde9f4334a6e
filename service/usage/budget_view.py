"""An app's budget as visible to one caller, assembled from the board and the usage store. Pure."""

from collections.abc import Iterable, Mapping

from service.budget.scheduler.interfaces import Ticked, WaitingCount
from service.model.budgets import AppCondition, BudgetView, CallerStanding, RecentCalls, UsageCounts, WorstWindows
from service.model.callers import Caller
from service.model.calls import CallKind


def parties(
    ticked: Ticked | None, here: Iterable[WaitingCount], tallies: Mapping[str, UsageCounts]
) -> tuple[CallerStanding, ...]:
    """Return all callers that are waiting or were active in the last hour; without a board, only those that wait
    `here`."""
    board = None if ticked is None else ticked.board
    rows = here if board is None else board.ranks
    waiting = {row.caller: row for row in rows}
    return tuple(
        CallerStanding(
            name=name,
            waiting=waiting[name].count if name in waiting else 0,
            oldest_s=waiting[name].waited_ms / 1000 if name in waiting else 0.0,
            tally=tallies.get(name, UsageCounts()),
        )
        for name in sorted({*waiting, *tallies})
    )


def total(parts: Iterable[CallerStanding]) -> CallerStanding:
    """Return the total of several callers, without their names."""
    waiting, oldest_s, tally = 0, 0.0, UsageCounts()
    for part in parts:
        waiting, oldest_s, tally = waiting + part.waiting, max(oldest_s, part.oldest_s), tally + part.tally
    return CallerStanding(name=None, waiting=waiting, oldest_s=oldest_s, tally=tally)


def budget_view(
    everybody: Iterable[CallerStanding],
    *,
    app: str,
    kind: CallKind,
    caller: Caller,
    ticked: Ticked | None,
    worst: WorstWindows,
    recent: RecentCalls,
    condition: AppCondition,
    redis_away: bool,
    calls: int,
    window_s: float,
) -> BudgetView:
    """Return the view: a caller sees itself by name and all others combined; an operator sees all, itself first."""
    by_name = {party.name: party for party in everybody}
    own = by_name.pop(caller.name, CallerStanding(name=caller.name))
    named = tuple(by_name.values()) if caller.operator else ()
    return BudgetView(
        app=app,
        kind=kind,
        condition=condition,
        recent=recent,
        redis_away=redis_away,
        calls=calls,
        window_s=window_s,
        free=None if ticked is None else ticked.free,
        pause_s=None if ticked is None else ticked.pause_in_ms / 1000,
        pause_reason="" if ticked is None else ticked.pause_reason,
        worst=worst,
        callers=(own, *named),
        others=total(() if caller.operator else by_name.values()),
    )
