"""Blocks in this replica's memory: bounded in bytes, the least recently used go first."""

import sys
from collections import OrderedDict
from collections.abc import Callable

import msgspec

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
    """Blocks by their key in Redis. All steps take constant time, `drop_app` a time for each block of that app.

    Counters: `bytes` held now, `evictions` for want of room since the start; `len()` tells the entries.
    """

    def __init__(self, *, max_bytes: int, clock: Callable[[], float]) -> None:
        """`clock` tells seconds and never steps back; with `max_bytes` 0 nothing is kept."""
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._keys_of: dict[str, set[str]] = {}
        self.bytes = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> CachedBlock | None:
        """The block, unless its end has come."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.ends_at_s:
            self.drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.kept

    def put(self, key: str, stored: Stored, *, app: str, head: bytes, ends_in_s: float) -> None:
        """Keep a block for `ends_in_s` at most; others make room. One larger than the whole cache is not kept."""
        self.drop(key)
        size_bytes = _size_bytes(key, stored)
        if size_bytes > self._max_bytes or ends_in_s <= 0:
            return
        kept = CachedBlock(stored=stored, head=head)
        ends_at_s = self._clock() + ends_in_s
        self._entries[key] = _Entry(kept=kept, app=app, ends_at_s=ends_at_s, size_bytes=size_bytes)
        self._keys_of.setdefault(app, set()).add(key)
        self.bytes += size_bytes
        while self.bytes > self._max_bytes:
            self.drop(next(iter(self._entries)))
            self.evictions += 1

    def drop(self, key: str) -> None:
        """Forget a block; nothing happens where there is none."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.bytes -= entry.size_bytes
        keys = self._keys_of[entry.app]
        keys.discard(key)
        if not keys:
            del self._keys_of[entry.app]

    def drop_app(self, app: str) -> int:
        """Forget all blocks of an app; tell how many there were."""
        keys = self._keys_of.get(app, set()).copy()
        for key in keys:
            self.drop(key)
        return len(keys)


def _size_bytes(key: str, stored: Stored) -> int:
    if isinstance(stored, Block):
        parts = (stored.body, stored.ids, stored.codes)
        return _ENTRY_BYTES + len(key) + sum(map(sys.getsizeof, parts)) + _END_BYTES * len(stored.ends)
    return _ENTRY_BYTES + len(key) + sys.getsizeof(stored.text)
