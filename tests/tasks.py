"""Tasks for tests that look at a few of their fields only."""

from typing import Any

import msgspec

from service.model.tasks import Task

_BARE = Task(
    id=0,
    type=None,
    status=None,
    title=None,
    description=None,
    created_at=None,
    scheduled_at=None,
    dispatched=None,
    dispatch_error=None,
    push_task_id=None,
    content=msgspec.Raw(b"null"),
)


def bare_task(id_: int, **fields: Any) -> Task:
    """A task with this id and these fields; all others are null."""
    return msgspec.structs.replace(_BARE, id=id_, **fields)
