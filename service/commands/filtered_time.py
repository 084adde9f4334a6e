"""Which of a task's times the upstream compares with a range, as far as an answer reveals it. Pure."""

from datetime import datetime

from service.model.queries import Range
from service.model.tasks import Task

MARGIN_S = 120
"""How far outside a range a time must lie to count, in seconds: clocks differ, and relative ranges move."""


def filtered_time(tasks: tuple[Task, ...], range_: Range) -> str:
    """Return a remark about an answer in the order of `scheduled_at`, empty if nothing can be concluded.

    The gateway documents that a range applies to the time named by `sort`. A task of the answer whose time lies outside
    the range proves that this time is not the one.
    """
    scheduled = _outside([task.scheduled_at for task in tasks], range_)
    created = _outside([task.created_at for task in tasks], range_)
    if scheduled and created:
        return "warning: since and until filter neither scheduled_at nor created_at, though sort is -scheduled_at"
    if scheduled:
        return "warning: since and until filter created_at, though sort is -scheduled_at: inform your callers"
    return "since and until filter the time that sort names" if created else ""


def _outside(times: list[str | None], range_: Range) -> int:
    """Return how many of the times lie outside; unknown ones don't count."""
    moments = [datetime.fromisoformat(time).timestamp() for time in times if time is not None]
    first_s, last_s = range_.since_s - MARGIN_S, range_.until_s + MARGIN_S
    return sum(not first_s <= moment <= last_s for moment in moments)
