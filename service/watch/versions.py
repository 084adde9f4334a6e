"""Versions of a watched list: its tasks at one time, compared field by field."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from hashlib import blake2b
from zlib import crc32

import msgspec

from service.model.queries import Range, Sort, is_moment
from service.model.streams import TaskLabels, task_labels_of
from service.model.tasks import Task

FIELDS: tuple[str, ...] = Task.__struct_fields__
"""The fields of a task, in the order of `WatchedTask.sums`."""
NAME_BYTES = 8
FORMAT = 1

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


class WatchedTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task of a version. `sums` are CRC-32s of its fields' JSON text, in the order of `FIELDS`.

    `at` is the time that the list is sorted by, as RFC 3339 in UTC, empty for none. `record` is the task as JSON; it is
    empty in a version that was read from Redis.
    """

    labels: TaskLabels
    at: str
    sums: tuple[int, ...]
    record: bytes = b""


def watched_task(record: bytes, *, sort: Sort, known: Mapping[int, WatchedTask]) -> WatchedTask:
    """Read an encoded task; an unchanged one is the object in `known`. Raise msgspec.DecodeError."""
    labels = task_labels_of(record)
    old = known.get(labels.id)
    if old is not None and old.record == record:
        return old
    members = _members.decode(record)
    raw = [bytes(members.get(name, b"")) for name in FIELDS]
    at = members.get(sort.value.lstrip("-"), msgspec.Raw(b"null"))
    return WatchedTask(
        labels=labels,
        at=msgspec.json.decode(at) or "",
        sums=tuple(crc32(text) for text in raw),
        record=record,
    )


class ListVersion:
    """A list at one time, by task id in the order of the list. `range` is the range sent to the upstream."""

    def __init__(self, tasks: Iterable[WatchedTask], *, range_: Range) -> None:
        self.tasks: Mapping[int, WatchedTask] = {task.labels.id: task for task in tasks}
        self.range = range_

    @property
    def has_records(self) -> bool:
        """Whether the tasks' text is available: it is not kept in Redis."""
        return all(task.record for task in self.tasks.values())

    @cached_property
    def text_bytes(self) -> int:
        """The length of the tasks' text."""
        return sum(len(task.record) for task in self.tasks.values())

    @cached_property
    def name(self) -> str:
        """16 hex digits; equal for versions that hold the same tasks with the same fields, on any replica."""
        digest = blake2b(digest_size=NAME_BYTES)
        for id_, task in sorted(self.tasks.items()):
            digest.update(b"%d:" % id_)
            digest.update(b"".join(each.to_bytes(4) for each in task.sums))
        return digest.hexdigest()


class _Row(msgspec.Struct, frozen=True, array_like=True):
    id: int
    type: str | None
    status: str | None
    at: str
    sums: bytes


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    format: int
    since_s: int
    until_s: int
    rows: tuple[_Row, ...]


_saved = msgspec.msgpack.Decoder(_Saved)


def encode_version(version: ListVersion) -> bytes:
    """Encode the part of a version that a reconnect needs: about 100 bytes per task."""
    rows = tuple(
        _Row(id_, task.labels.type, task.labels.status, task.at, b"".join(each.to_bytes(4) for each in task.sums))
        for id_, task in version.tasks.items()
    )
    return msgspec.msgpack.encode(_Saved(FORMAT, version.range.since_s, version.range.until_s, rows))


def decode_version(value: bytes) -> ListVersion | None:
    """Decode a version; return None for one that is damaged or of another format."""
    try:
        saved = _saved.decode(value)
        if saved.format != FORMAT or any(len(row.sums) != 4 * len(FIELDS) for row in saved.rows):
            return None
        if not (is_moment(saved.since_s) and is_moment(saved.until_s)):
            return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    tasks = (
        WatchedTask(
            labels=TaskLabels(id=row.id, type=row.type, status=row.status),
            at=row.at,
            sums=tuple(int.from_bytes(row.sums[at : at + 4]) for at in range(0, len(row.sums), 4)),
        )
        for row in saved.rows
    )
    return ListVersion(tasks, range_=Range(since_s=saved.since_s, until_s=saved.until_s))
