"""Blocks in this replica's memory: limited in bytes, evicting the least recently used first."""

import sys
from collections.abc import Callable

import msgspec

from service.cache.lru import LruTable
from service.model.blocks import Block, CachedBlock, RefusedQuery, Stored

# Overhead of an entry beside body, text and ends: structs, key, dict links. Measured with tracemalloc.
_ENTRY_BYTES = 1100
# One number in `ends`: its slot in the tuple and the int itself.
_END_BYTES = 40
# One task that can be found by its id: the id in the entry, and its place in the table of holders.
_ID_BYTES = 110


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    kept: CachedBlock
    app: str
    ids: tuple[int, ...]
    fetched_at_ms: int
    ends_at_s: float
    size_bytes: int


class MemoryBlocks:
    """Blocks by their key in Redis. Operations take constant time, except `drop_app`: linear in all apps' blocks."""

    def __init__(self, *, max_bytes: int, clock: Callable[[], float]) -> None:
        """`clock` returns seconds and never steps back; with `max_bytes` 0 nothing is stored."""
        self._clock = clock
        self._entries: LruTable[str, _Entry] = LruTable(
            max_bytes, size_of=lambda _, entry: entry.size_bytes, on_leave=self._forget_tasks
        )
        self._holders: dict[str, dict[int, _Entry]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> CachedBlock | None:
        """Return the block, unless it has expired."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.ends_at_s:
            self.drop(key)
            return None
        return entry.kept

    def find_task(self, app: str, task_id: int) -> Block | None:
        """Return the block in which the task was found last, of those stored with `finds_tasks`."""
        holder = self._holders.get(app, {}).get(task_id)
        kept = None if holder is None else self.get(holder.key)
        return kept.stored if kept is not None and isinstance(kept.stored, Block) else None

    def put(self, key: str, kept: CachedBlock, *, app: str, ends_in_s: float, finds_tasks: bool = False) -> None:
        """Store a block for at most `ends_in_s`, evicting others to make room.

        One larger than the whole cache is not stored. With `finds_tasks`, its tasks can be found by their ids.
        """
        self.drop(key)
        stored = kept.stored
        if stored is None or ends_in_s <= 0:
            return
        ids = stored.task_ids() if finds_tasks and isinstance(stored, Block) else ()
        entry = _Entry(
            key=key,
            kept=kept,
            app=app,
            ids=ids,
            fetched_at_ms=stored.fetched_at_ms,
            ends_at_s=self._clock() + ends_in_s,
            size_bytes=_size_bytes(key, stored) + _ID_BYTES * len(ids),
        )
        if self._entries.put(key, entry) and ids:
            self._note_tasks(entry)

    def drop(self, key: str) -> None:
        """Remove a block, if present."""
        self._entries.pop(key)

    def drop_app(self, app: str) -> int:
        """Remove all blocks of an app; return how many there were."""
        keys = [key for key, entry in self._entries.items() if entry.app == app]
        for key in keys:
            self.drop(key)
        return len(keys)

    @property
    def bytes(self) -> int:
        """Return the total size of the blocks."""
        return self._entries.size

    @property
    def evictions(self) -> int:
        """Return how many blocks have been evicted for lack of room since the start."""
        return self._entries.evictions

    def _note_tasks(self, entry: _Entry) -> None:
        """Make the entry's tasks findable, except those in a newer block."""
        fetched_at_ms = entry.fetched_at_ms
        holders = self._holders.setdefault(entry.app, {})
        for task_id in entry.ids:
            other = holders.get(task_id)
            if other is None or other.fetched_at_ms <= fetched_at_ms:
                holders[task_id] = entry

    def _forget_tasks(self, _: str, entry: _Entry) -> None:
        holders = self._holders.get(entry.app, {})
        for task_id in entry.ids:
            if holders.get(task_id) is entry:
                del holders[task_id]
        if not holders:
            self._holders.pop(entry.app, None)


def _size_bytes(key: str, stored: Stored) -> int:
    size = _ENTRY_BYTES + len(key)
    match stored:
        case Block():
            parts = (stored.body, stored.ids, stored.codes)
            return size + sum(map(sys.getsizeof, parts)) + _END_BYTES * len(stored.ends)
        case RefusedQuery():
            return size + sys.getsizeof(stored.text)
    return size
