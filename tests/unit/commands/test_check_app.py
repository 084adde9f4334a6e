"""Which of a task's times the upstream filters by, as its answers show."""

import pytest

from service.commands.check_app import time_filter_remark
from service.model.queries import Range
from service.model.tasks import Task
from tests.tasks import bare_task

DAY = Range(since_s=1_746_057_600, until_s=1_746_143_999)
INSIDE, NEAR, OUTSIDE = "2025-05-01T12:00:00Z", "2025-05-02T00:01:00Z", "2025-04-30T12:00:00Z"


def task(scheduled_at: str | None, created_at: str | None) -> Task:
    """A task with these times."""
    return bare_task(1, created_at=created_at, scheduled_at=scheduled_at)


@pytest.mark.parametrize(
    ("times", "remark"),
    [
        ([], ""),
        ([(INSIDE, INSIDE), (NEAR, NEAR), (None, None)], ""),
        ([(INSIDE, OUTSIDE), (INSIDE, None)], "since and until filter the time that sort names"),
        ([(OUTSIDE, INSIDE), (INSIDE, INSIDE)], "warning: since and until filter created_at"),
        ([(OUTSIDE, INSIDE), (INSIDE, OUTSIDE)], "warning: since and until filter neither"),
    ],
)
def test_a_time_outside_the_range_is_ruled_out(times: list[tuple[str | None, str | None]], remark: str) -> None:
    """A task with one time outside the range rules that time out; a minute outside may be due to a clock."""
    said = time_filter_remark(tuple(task(*each) for each in times), DAY)
    assert said.startswith(remark)
    assert bool(said) == bool(remark)
