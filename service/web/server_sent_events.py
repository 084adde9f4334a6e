"""Encoding of a watcher's events as server-sent events (WHATWG HTML, section 9.2): names, data and bytes."""

from typing import Protocol

import msgspec

from service.model.errors import ShuttingDown
from service.model.queries import rfc3339
from service.watch.changes import RemovalReason, TaskAdded, TaskChanged, TaskRemoved
from service.watch.events import EndEvent, IdentifiedEvent, ListedEvent, ResetEvent, StaleEvent, SyncedEvent, WatchEvent
from service.web.problems.from_errors import Problem
from service.web.stream import one_line

EVENT_STREAM = "text/event-stream"
RETRY_MS = 2_000
"""Delay before a client reconnects."""
RETRY_ELSEWHERE_MS = 100
"""Delay if this replica is shutting down: another one can accept the connection at once."""
RETRY = b"retry: %d\n\n" % RETRY_MS
KEEP_ALIVE = b": keep-alive\n\n"

NAMES: dict[type[WatchEvent], str] = {
    ListedEvent: "task",
    TaskAdded: "added",
    TaskChanged: "changed",
    TaskRemoved: "removed",
    SyncedEvent: "synced",
    StaleEvent: "stale",
    ResetEvent: "reset",
    EndEvent: "end",
}


class ProblemMaker(Protocol):
    """Converts an error to a problem for the caller."""

    def __call__(self, error: Exception, *, is_last: bool) -> Problem:
        """Return the problem. `is_last` is true if the error ends the stream."""
        ...


class ChangedData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `changed`."""

    fields: tuple[str, ...]
    task: msgspec.Raw


class RemovedData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `removed`: `status` is the task's last known one."""

    id: int
    status: str | None
    reason: RemovalReason


class SyncedData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `synced`: `count` tasks are watched, of `total` in the range."""

    count: int
    total: int
    as_of: str
    age_seconds: float


class StaleData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `stale`: what has changed since `as_of` is unknown; `problem` says why, if this replica knows."""

    as_of: str
    problem: Problem | None


class EndData(msgspec.Struct, frozen=True, kw_only=True):
    """The data of `end`."""

    problem: Problem


def name_of(event: WatchEvent) -> str:
    """Return the value of an event's `event` field."""
    return NAMES[type(event)]


def encode_event(identified: IdentifiedEvent, *, problem: ProblemMaker) -> bytes:
    """Return the event's bytes, including the terminating blank line."""
    event = identified.event
    retry = ""
    if isinstance(event, EndEvent) and isinstance(event.error, ShuttingDown):
        retry = f"retry: {RETRY_ELSEWHERE_MS}\n"
    return f"{retry}id: {identified.id}\nevent: {name_of(event)}\ndata: ".encode() + _data(event, problem) + b"\n\n"


def _data(event: WatchEvent, problem: ProblemMaker) -> bytes:
    data: msgspec.Struct
    match event:
        case ListedEvent(task=task) | TaskAdded(task=task):
            return one_line(task.record)
        case TaskChanged(task=task, fields=fields):
            data = ChangedData(fields=fields, task=msgspec.Raw(one_line(task.record)))
        case TaskRemoved(id=id_, status=status, reason=reason):
            data = RemovedData(id=id_, status=status, reason=reason)
        case SyncedEvent(count=count, total=total, as_of_ms=as_of_ms, age_s=age_s):
            as_of = rfc3339(as_of_ms // 1000)
            data = SyncedData(count=count, total=total, as_of=as_of, age_seconds=round(age_s, 3))
        case StaleEvent(error=error, as_of_ms=as_of_ms):
            described = None if error is None else problem(error, is_last=False)
            data = StaleData(as_of=rfc3339(as_of_ms // 1000), problem=described)
        case ResetEvent():
            return b"{}"
        case EndEvent(error=error):
            data = EndData(problem=problem(error, is_last=True))
    return msgspec.json.encode(data)
