"""Blocks in this replica's memory: bounded in bytes, the least recently used go first."""

import sys
from collections.abc import Callable

import msgspec

from service.cache.lru import LruTable
from service.model.blocks import Block, CachedBlock, Stored

# What an entry costs besides body, text and ends: structs, key, links of the dicts. Measured with tracemalloc.
_ENTRY_BYTES = 1100
# One number of `ends`: its place in the tuple and the int itself.
_END_BYTES = 40


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    kept: CachedBlock
    app: str
    ends_at_s: float
    size_bytes: int


class MemoryBlocks:
    """Blocks by their key in Redis. All steps take constant time, `drop_app` a time for each block of that app."""

    def __init__(self, *, max_bytes: int, clock: Callable[[], float]) -> None:
        """`clock` returns seconds and never steps back; with `max_bytes` 0 nothing is kept."""
        self._clock = clock
        self._entries: LruTable[str, _Entry] = LruTable(
            max_bytes, size_of=lambda _, entry: entry.size_bytes, on_leave=self._left
        )
        self._keys_of: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> CachedBlock | None:
        """Return the block, unless its end has come."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.ends_at_s:
            self.drop(key)
            return None
        return entry.kept

    def put(self, key: str, stored: Stored, *, app: str, head: bytes, ends_in_s: float) -> None:
        """Keep a block for `ends_in_s` at most; others make room. One larger than the whole cache is not kept."""
        self.drop(key)
        if ends_in_s <= 0:
            return
        entry = _Entry(
            kept=CachedBlock(stored=stored, head=head),
            app=app,
            ends_at_s=self._clock() + ends_in_s,
            size_bytes=_size_bytes(key, stored),
        )
        if self._entries.put(key, entry):
            self._keys_of.setdefault(app, set()).add(key)

    def drop(self, key: str) -> None:
        """Forget a block; nothing happens where there is none."""
        self._entries.pop(key)

    def drop_app(self, app: str) -> int:
        """Forget all blocks of an app; return how many there were."""
        keys = self._keys_of.get(app, set()).copy()
        for key in keys:
            self.drop(key)
        return len(keys)

    @property
    def bytes(self) -> int:
        """What the blocks take now."""
        return self._entries.size

    @property
    def evictions(self) -> int:
        """How many blocks have left for want of room since the start."""
        return self._entries.evictions

    def _left(self, key: str, entry: _Entry) -> None:
        keys = self._keys_of[entry.app]
        keys.discard(key)
        if not keys:
            del self._keys_of[entry.app]


def _size_bytes(key: str, stored: Stored) -> int:
    if isinstance(stored, Block):
        parts = (stored.body, stored.ids, stored.codes)
        return _ENTRY_BYTES + len(key) + sum(map(sys.getsizeof, parts)) + _END_BYTES * len(stored.ends)
    return _ENTRY_BYTES + len(key) + sys.getsizeof(stored.text)
