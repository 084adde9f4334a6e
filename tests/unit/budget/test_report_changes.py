"""A tick sends exactly the part of a replica's report that the scheduler may not know."""

from hypothesis import given
from hypothesis import strategies as st

from service.budget.scheduler.interfaces import WaitingCount
from service.budget.scheduler.report_changes import WHOLE_EVERY, Changes, ReportChanges


def row(caller: str, count: int = 1, *, waited_ms: int = 0, weight: float = 1.0) -> WaitingCount:
    return WaitingCount(caller=caller, weight=weight, count=count, waited_ms=waited_ms)


def sent(reports: ReportChanges, *rows: WaitingCount, now_ms: float = 0.0) -> dict[str, int]:
    """Return what a tick sends, once it is answered."""
    changes = reports.changes(rows, now_ms=now_ms)
    reports.answered()
    return {each.caller: each.count for each in changes.rows}


def test_the_first_report_is_whole_and_a_steady_one_empty() -> None:
    """Nothing is sent twice: continued waiting is no change, however long it lasts."""
    reports = ReportChanges()
    assert reports.changes((row("a", 2), row("b")), now_ms=0).whole
    reports.answered()
    assert sent(reports, row("a", 2, waited_ms=500), row("b", waited_ms=501), now_ms=500) == {}


def test_changes_are_sent() -> None:
    """A changed count, weight or oldest block; added and removed rows."""
    reports = ReportChanges()
    sent(reports, row("a", 2), row("b"), row("c"), row("d"))
    changed = (row("a", 1, waited_ms=100), row("b", weight=2.0, waited_ms=100), row("c", waited_ms=20), row("e"))
    assert sent(reports, *changed, now_ms=100) == {"a": 1, "b": 1, "c": 1, "d": 0, "e": 1}
    assert sent(reports, *changed[:3], row("e", waited_ms=0), now_ms=100) == {}


def test_unanswered_changes_are_sent_again() -> None:
    """After a tick without an answer its rows are sent again, as they are then, including removed ones."""
    reports = ReportChanges()
    sent(reports, row("a"), row("b"))
    reports.changes((row("a"), row("c")), now_ms=0)
    reports.failed()
    assert sent(reports, row("a"), row("b")) == {"b": 1, "c": 0}


def test_changes_made_by_the_scheduler_are_sent() -> None:
    """A turn that is begun reduces the count by one; also if that happens while a tick is in progress."""
    reports = ReportChanges()
    sent(reports, row("a", 2))
    reports.uncertain(["a"])
    assert sent(reports, row("a", 2)) == {"a": 2}
    reports.changes((row("a", 2),), now_ms=0)
    reports.uncertain(["a"])
    reports.answered()
    assert sent(reports, row("a", 2)) == {"a": 2}
    assert sent(reports, row("a", 2)) == {}


def test_the_whole_report_is_sent_periodically() -> None:
    """The whole report is sent periodically, so that any loss heals."""
    reports = ReportChanges()
    wholes = []
    for _ in range(2 * WHOLE_EVERY):
        wholes.append(reports.changes((row("a"),), now_ms=0).whole)
        reports.answered()
    assert [number for number, whole in enumerate(wholes) if whole] == [0, WHOLE_EVERY - 1, 2 * WHOLE_EVERY - 1]


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3)), st.sampled_from(["ok", "lost", "late"]))
    )
)
def test_the_rows_sent_add_up_to_the_report(history: list[tuple[dict[str, int], str]]) -> None:
    """With answers lost and ticks that never arrive, the rows sent add up to the report of each tick that arrives."""
    reports, kept, number = ReportChanges(), dict[str, int](), 0
    for counts, fate in history:
        rows = tuple(row(caller, count) for caller, count in counts.items())
        changes: Changes = reports.changes(rows, now_ms=0)
        if fate != "lost" and not changes.whole and number < changes.base:
            changes = reports.changes(rows, now_ms=0, whole=True)
        if fate != "lost":
            kept, number = {} if changes.whole else kept, changes.number
            kept |= {each.caller: each.count for each in changes.rows}
            assert {caller: count for caller, count in kept.items() if count} == counts
        if fate == "ok":
            reports.answered()
        else:
            reports.failed()


def test_an_unanswered_whole_report_is_not_sent_again() -> None:
    """If Redis is slow, whole reports would slow it further: the next tick only checks whether it has arrived."""
    reports = ReportChanges()
    first = reports.changes((row("a"),), now_ms=0)
    reports.failed()
    second = reports.changes((row("a"), row("b")), now_ms=0)
    assert ([each.caller for each in second.rows], second.whole, second.base) == (["b"], False, first.number)
