"""The changes from one version of a list to the next, for watchers of all tasks or of some."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from service.model.queries import Range, rfc3339
from service.model.streams import TaskFilter
from service.watch.versions import FIELDS, ListVersion, WatchedTask

RemovalReason = Literal["deleted", "filter", "range"]
"""Why a task is no longer watched: it has left the list, the filter (`status`, `type`), or the time range."""


class TaskAdded(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was not watched before."""

    task: WatchedTask


class TaskChanged(msgspec.Struct, frozen=True, kw_only=True):
    """A task whose `fields` differ."""

    task: WatchedTask
    fields: tuple[str, ...]


class TaskRemoved(msgspec.Struct, frozen=True, kw_only=True):
    """A task that is no longer watched; `status` is its last known status."""

    id: int
    status: str | None
    reason: RemovalReason


TaskChange = TaskAdded | TaskChanged | TaskRemoved
TasksById = Mapping[int, WatchedTask]


def task_changes(before: TasksById, after: ListVersion, only: TaskFilter) -> tuple[TaskChange, ...]:
    """Return the changes from `before` to `after` for a watcher of `only`.

    The order is the same on all replicas: added and changed tasks and those that left the filter in the order of the
    new list, then those that left the list.
    """
    found: list[TaskChange] = []
    for id_, task in after.tasks.items():
        old = before.get(id_)
        if old is task:
            continue
        was_watched = old is not None and only.takes(old.labels)
        if only.takes(task.labels):
            if not was_watched or old is None:
                found.append(TaskAdded(task=task))
            elif old.sums != task.sums:
                fields = zip(FIELDS, old.sums, task.sums, strict=True)
                found.append(TaskChanged(task=task, fields=tuple(name for name, was, is_ in fields if was != is_)))
        elif was_watched:
            found.append(TaskRemoved(id=id_, status=task.labels.status, reason="filter"))
    for id_, old in before.items():
        if id_ not in after.tasks and only.takes(old.labels):
            reason: RemovalReason = "deleted" if _is_within(old, after.range) else "range"
            found.append(TaskRemoved(id=id_, status=old.labels.status, reason=reason))
    return tuple(found)


def with_changes(before: TasksById, steps: Sequence[TaskChange]) -> dict[int, WatchedTask]:
    """Return the tasks after some of the changes: the state of a watcher that was cut off among them."""
    tasks = dict(before)
    for step in steps:
        match step:
            case TaskAdded(task=task) | TaskChanged(task=task):
                tasks[task.labels.id] = task
            case TaskRemoved(id=id_):
                tasks.pop(id_, None)
    return tasks


def _is_within(task: WatchedTask, range_: Range) -> bool:
    """Return whether the task's time is still in the range; times compare as text, since they are RFC 3339 in UTC."""
    return not task.at or rfc3339(range_.since_s) <= task.at <= rfc3339(range_.until_s)
