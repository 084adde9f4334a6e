"""Whole lists, read block by block: which tasks are wanted, and what tells that the list has changed meanwhile."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec

STATUSES = ("pending", "dispatching", "dispatched")
TYPES = ("all", "tag", "user")

REMEMBERED_BLOCKS = 2
"""How many blocks back an id is still known: a list that moves on shows a block's last records again in the next."""


class TaskLabels(msgspec.Struct, frozen=True, kw_only=True):
    """What of an encoded task decides whether it is wanted, and whether it was seen before."""

    id: int
    type: str | None
    status: str | None


_labels = msgspec.json.Decoder(TaskLabels)


def labels_of(record: bytes) -> TaskLabels:
    """Read the labels of an encoded task; what else it holds is skipped."""
    return _labels.decode(record)


class Only(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks of a list are wanted: those with one of these statuses and one of these types; empty for any."""

    statuses: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def is_everything(self) -> bool:
        """Whether no task is left out."""
        return not self.statuses and not self.types

    def takes(self, labels: TaskLabels) -> bool:
        """Whether a task is wanted."""
        return (not self.statuses or labels.status in self.statuses) and (not self.types or labels.type in self.types)

    def matches(self, codes: bytes) -> bytes:
        """Return 1 for each of these codes (`code_of`) whose task is wanted, else 0: a pass over bytes, no decoding."""
        return codes.translate(_table(self))


def code_of(status: str | None, type_: str | None) -> int:
    """Return status and type as one byte; what the upstream adds to either one day is one code for all."""
    return _STATUS_CODES.get(status, 0) * _TYPES + _TYPE_CODES.get(type_, 0)


_STATUS_CODES: Mapping[str | None, int] = {name: number for number, name in enumerate(STATUSES, start=1)}
_TYPE_CODES: Mapping[str | None, int] = {name: number for number, name in enumerate(TYPES, start=1)}
_TYPES = len(TYPES) + 1


@lru_cache(maxsize=256)
def _table(only: Only) -> bytes:
    """What `bytes.translate` needs: 1 at each code that is wanted."""
    names = ((status, type_) for status in (None, *STATUSES) for type_ in (None, *TYPES))
    wanted = {
        code_of(status, type_) for status, type_ in names if only.takes(TaskLabels(id=0, type=type_, status=status))
    }
    return bytes(code in wanted for code in range(256))


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of a list so far: the newest total, the ids of its last blocks, whether it has changed meanwhile.

    A change shows where the total differs from that of the block before, an id comes again within REMEMBERED_BLOCKS,
    or a block is shorter than its own total says. One that takes as many tasks from the part that was read as it adds
    at the end of the list shows in none of these.
    """

    total: int
    ids: tuple[frozenset[int], ...] = ()
    changed: bool = False

    def after(self, ids: Sequence[int], *, total: int, is_short: bool) -> "Seen":
        """The same with one more block."""
        fresh = frozenset(ids)
        again = len(fresh) < len(ids) or any(not fresh.isdisjoint(each) for each in self.ids)
        return Seen(
            total=total,
            ids=(*self.ids, fresh)[-REMEMBERED_BLOCKS:],
            changed=self.changed or again or is_short or total != self.total,
        )
