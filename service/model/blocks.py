"""Blocks and their keys: runs of records, encoded once when fetched and then sliced without being decoded."""

import struct

import msgspec

from service.model.queries import Query, Range
from service.model.streams import TaskFilter, code_of
from service.model.tasks import Listing, Task

DISPATCHED = "dispatched"

HEAD_BYTES = 16
"""How many bytes at the start of a stored block distinguish one fetch from every other."""

_ID_BYTES = 8
_NO_RANGE = Range(since_s=0, until_s=0)
_IS_DISPATCHED = TaskFilter(statuses=(DISPATCHED,))

_encoder = msgspec.json.Encoder()


class BlockKey(msgspec.Struct, frozen=True, kw_only=True):
    """The block of a query's list with this index, counted from 0."""

    query: Query
    index: int

    @property
    def app(self) -> str:
        """The app that is called for it."""
        return self.query.app


class TaskKey(msgspec.Struct, frozen=True, kw_only=True):
    """One task of an app, by its id."""

    app: str
    id: int


CacheKey = BlockKey | TaskKey
"""What is fetched, stored and joined as one: a block of a list, or a task by its id."""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Up to `block_size` records of one query as JSON text, with what is known of the whole list.

    `body` holds the records as JSON objects joined by commas; `ends[i]` is the end of record i within it. `range` is
    what was sent upstream, `fetched_at_ms` the wall clock at the answer, in milliseconds since the epoch.

    `ids` holds the records' ids, eight bytes each, and `codes` one byte each with status and type (`streams.code_of`),
    so that a list can be filtered without decoding it.

    `left_out` counts records that are missing because they have no id. `unfinished` says that the upstream returns
    fewer records per call than a block holds, and further calls must fetch the rest: such a block is never served. If
    the block was fetched by several calls, `changed` says that the list was seen to change between them.
    """

    fetched_at_ms: int
    range: Range
    total: int
    settled: bool
    ends: tuple[int, ...]
    body: bytes
    ids: bytes = b""
    codes: bytes = b""
    left_out: int = 0
    unfinished: bool = False
    changed: bool = False

    @property
    def received(self) -> int:
        """The number of upstream records that the block covers."""
        return len(self.ends) + self.left_out

    def task_ids(self) -> tuple[int, ...]:
        """The records' ids."""
        return struct.unpack(f">{len(self.ids) // 8}q", self.ids)

    def cut(self, start: int, stop: int) -> bytes:
        """Return JSON text of the records from `start` up to `stop` (within the block), joined by commas."""
        stop = min(stop, len(self.ends))
        if start >= stop:
            return b""
        first = self.ends[start - 1] + 1 if start else 0
        return self.body[first : self.ends[stop - 1]]

    def records(self, start: int, stop: int) -> tuple[bytes, ...]:
        """Return JSON text of each record from `start` up to `stop` (within the block)."""
        firsts = (0, *(end + 1 for end in self.ends))
        return tuple(
            self.body[first:end] for first, end in zip(firsts[start:stop], self.ends[start:stop], strict=False)
        )


class RefusedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream's refusal of a query's parameters, stored in place of a block."""

    fetched_at_ms: int
    code: int
    text: str


class MissingTask(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream's answer that it has no task with this id, stored in place of the task."""

    fetched_at_ms: int


Stored = Block | RefusedQuery | MissingTask


class CachedBlock(msgspec.Struct, frozen=True, kw_only=True):
    """The value stored under a block's key. `head` is its first HEAD_BYTES, b"" if nothing is stored.

    An unreadable value counts as nothing stored but keeps its head, so that the budget knows which value the replica
    has seen and allows the fetch that replaces it.
    """

    stored: Stored | None
    head: bytes

    @property
    def is_unfinished(self) -> bool:
        """Return whether it is only a part of a block, whose other records are still to be fetched."""
        return isinstance(self.stored, Block) and self.stored.unfinished


NOTHING = CachedBlock(stored=None, head=b"")


def block_of(listing: Listing, *, query: Query, range_: Range, fetched_at_ms: int) -> Block:
    """Encode a listing into a block.

    A block is settled when its range has ended and all its tasks have been dispatched. A relative range never ends: it
    moves.
    """
    ended = query.is_absolute and range_.until_s * 1000 < fetched_at_ms
    parts = [_encoder.encode(task) for task in listing.tasks]
    ends: list[int] = []
    position = -1
    for part in parts:
        position += 1 + len(part)
        ends.append(position)
    return Block(
        fetched_at_ms=fetched_at_ms,
        range=range_,
        total=listing.total,
        settled=ended and all(task.status == DISPATCHED for task in listing.tasks),
        ends=tuple(ends),
        body=b",".join(parts),
        ids=struct.pack(f">{len(parts)}q", *(task.id for task in listing.tasks)),
        codes=bytes(code_of(task.status, task.type) for task in listing.tasks),
        left_out=listing.left_out,
    )


def block_of_task(task: Task, *, fetched_at_ms: int) -> Block:
    """Encode a task that was fetched by its id as a block of one record, settled once it is dispatched."""
    body = _encoder.encode(task)
    return Block(
        fetched_at_ms=fetched_at_ms,
        range=_NO_RANGE,
        total=1,
        settled=task.status == DISPATCHED,
        ends=(len(body),),
        body=body,
        ids=struct.pack(">q", task.id),
        codes=bytes((code_of(task.status, task.type),)),
    )


def single_task(block: Block, task_id: int) -> Block | None:
    """Return one of the block's tasks as if it had been fetched by its id at the same time; None if it lacks it."""
    task = struct.pack(">q", task_id)
    at = block.ids.find(task)
    while at > 0 and at % _ID_BYTES:  # within two other ids
        at = block.ids.find(task, at + 1)
    if at < 0:
        return None
    place = at // _ID_BYTES
    body, code = block.cut(place, place + 1), block.codes[place : place + 1]
    return Block(
        fetched_at_ms=block.fetched_at_ms,
        range=_NO_RANGE,
        total=1,
        settled=_IS_DISPATCHED.matches(code) == b"\x01",
        ends=(len(body),),
        body=body,
        ids=task,
        codes=code,
    )


def joined(first: Block, rest: Block) -> Block:
    """Join two consecutive parts into one block, as old as the first part."""
    base = len(first.body) + 1 if first.body else 0
    return Block(
        fetched_at_ms=first.fetched_at_ms,
        range=first.range,
        total=rest.total,
        settled=first.settled and rest.settled,
        ends=(*first.ends, *(base + end for end in rest.ends)),
        body=b",".join(body for body in (first.body, rest.body) if body),
        ids=first.ids + rest.ids,
        codes=first.codes + rest.codes,
        left_out=first.left_out + rest.left_out,
        unfinished=rest.unfinished,
        changed=first.changed or rest.total != first.total,
    )
