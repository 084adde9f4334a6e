"""Reports: the callers that wait on each replica, and until when this holds."""

from service.budget.scheduler.interfaces import WaitingCount
from service.budget.scheduler.policy.state import BudgetState, Report, ReportRow, Slot


def take_report(
    state: BudgetState, replica: str, waiting: tuple[WaitingCount, ...], changed: frozenset[str] | None
) -> dict[str, ReportRow]:
    """Replace the replica's report, and return it.

    Callers that are not in `changed` keep their time of entry, and so do those of which nothing differs. None means
    that all may have changed.
    """
    before = state.reports.pop(replica, None)
    rows = {}
    for each in waiting:
        if each.count:
            known = before.rows.get(each.caller) if before else None
            row = ReportRow(
                weight=each.weight,
                count=each.count,
                since=state.now - each.waited_ms,
                background=each.background,
            )
            is_changed = changed is None or each.caller in changed
            if known and (not is_changed or known.is_same(row)):
                row.since = known.since
            rows[each.caller] = row
    if rows:
        state.reports[replica] = Report(expires=state.now + state.rules.report_lease_ms, rows=rows)
    return rows


def bury_dead(state: BudgetState) -> None:
    """Forget the replicas whose reports have expired."""
    state.reports = {name: report for name, report in state.reports.items() if report.expires > state.now}


def take_off(state: BudgetState, slot: Slot) -> None:
    """Take one from the demand that this slot's turn was given for."""
    report = state.reports.get(slot.replica)
    row = report.rows.get(slot.caller) if report else None
    if row is not None and row.count > 0:
        row.count -= 1
