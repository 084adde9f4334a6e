"""Whole lists, read block by block: which tasks are wanted, and what tells that the list has changed meanwhile."""

from collections.abc import Sequence

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
    """Which tasks of a list are wanted: those with this status and this type, None for any."""

    status: str | None = None
    type: str | None = None

    def takes(self, labels: TaskLabels) -> bool:
        """Whether a task is wanted."""
        return self.status in (None, labels.status) and self.type in (None, labels.type)


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
