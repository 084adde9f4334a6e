"""Whole lists, read block by block: which tasks match, and how changes of the list are detected meanwhile."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

STATUSES = ("pending", "dispatching", "dispatched")
TYPES = ("all", "tag", "user")

REMEMBERED_BLOCKS = 2
"""For how many blocks an id is remembered: when a list moves on, a block's last records appear again in the next."""


class TaskLabels(msgspec.Struct, frozen=True, kw_only=True):
    """The members of an encoded task that decide whether it matches, and whether it was seen before."""

    id: int
    type: str | None
    status: str | None


_labels = msgspec.json.Decoder(TaskLabels)


def task_labels_of(record: bytes) -> TaskLabels:
    """Read the labels of an encoded task; its other members are skipped."""
    return _labels.decode(record)


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A filter on tasks: those with one of these statuses and one of these types; empty for any."""

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether every task matches."""
        return not self.statuses and not self.types

    def takes(self, labels: TaskLabels) -> bool:
        """Return whether a task matches."""
        return (not self.statuses or labels.status in self.statuses) and (not self.types or labels.type in self.types)

    def matches(self, codes: bytes) -> bytes:
        """Return 1 for each of these codes (`code_of`) whose task matches, else 0: one pass over bytes, no decoding."""
        return codes.translate(_table(self))


def code_of(status: str | None, type_: str | None) -> int:
    """Return status and type as one byte; values that the upstream may add later all map to a single code."""
    return _STATUS_CODES.get(status, 0) * _TYPES + _TYPE_CODES.get(type_, 0)


_STATUS_CODES: Mapping[str | None, int] = {name: number for number, name in enumerate(STATUSES, start=1)}
_TYPE_CODES: Mapping[str | None, int] = {name: number for number, name in enumerate(TYPES, start=1)}
_TYPES = len(TYPES) + 1


@lru_cache(maxsize=256)
def _table(only: TaskFilter) -> bytes:
    """Return a table for `bytes.translate`: 1 at each code that matches."""
    names = ((status, type_) for status in (None, *STATUSES) for type_ in (None, *TYPES))
    matching = {
        code_of(status, type_) for status, type_ in names if only.takes(TaskLabels(id=0, type=type_, status=status))
    }
    return bytes(code in matching for code in range(256))


class SeenTasks(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a list so far: the newest total, the ids of its last blocks, and whether it has changed.

    A change is detected if the total differs from that of the block before, if an id repeats within REMEMBERED_BLOCKS,
    or if a block is shorter than its own total implies. A change that removes as many tasks from the part already read
    as it adds at the end of the list goes undetected.
    """

    total: int
    ids: tuple[frozenset[int], ...] = ()
    changed: bool = False

    def after(self, ids: Sequence[int], *, total: int, is_short: bool) -> "SeenTasks":
        """Return the state after one more block."""
        fresh = frozenset(ids)
        again = len(fresh) < len(ids) or any(not fresh.isdisjoint(each) for each in self.ids)
        return SeenTasks(
            total=total,
            ids=(*self.ids, fresh)[-REMEMBERED_BLOCKS:],
            changed=self.changed or again or is_short or total != self.total,
        )
