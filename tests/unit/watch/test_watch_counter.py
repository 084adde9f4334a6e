"""The usage that a watch is counted with."""

from collections import Counter

from service.model.budgets import COLUMNS
from service.watch.feeds import WatchCounter


def test_a_watch_is_counted() -> None:
    """Its opening, its events, its resets, and each second in which it was open, once."""
    events: Counter[str] = Counter()
    used: Counter[str] = Counter()
    now_s = 100.25

    def usage(column: str, number: int) -> None:
        used[column] += number

    counter = WatchCounter(events, usage, now_s=lambda: now_s)
    assert used == {"watches": 1}
    counter.sent(["reset", "task", "task", "synced"])
    assert used == {"watches": 1, "events": 4, "resets": 1}
    for step_s in (0.5, 0.4, 0.2, 15.0, 0.95):
        now_s += step_s
        counter.sent(())
    assert used == {"watches": 1, "events": 4, "resets": 1, "watched_s": 17}
    assert events == {"reset": 1, "task": 2, "synced": 1}
    assert set(used) <= set(COLUMNS)
