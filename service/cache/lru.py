"""A table of what was used last."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, ItemsView
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruTable(Generic[K, V]):
    """The values used last, up to `max_size` in all: by default their number, else what `size_of` says of each.

    `size` is what they take now, `evictions` counts those that left for want of room. `on_leave` is called for each
    value that leaves, for whatever reason.
    """

    __slots__ = ("_entries", "_max_size", "_on_leave", "_size_of", "evictions", "size")

    def __init__(
        self,
        max_size: int,
        *,
        size_of: Callable[[K, V], int] | None = None,
        on_leave: Callable[[K, V], None] | None = None,
    ) -> None:
        self.size = 0
        self.evictions = 0
        self._max_size = max_size
        self._size_of = size_of
        self._on_leave = on_leave
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> ItemsView[K, V]:
        """Return keys and values, the one used longest ago first."""
        return self._entries.items()

    def get(self, key: K) -> V | None:
        """Return a value, which counts as used now."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> bool:
        """Keep a value in place of the key's former one; others make room. Return whether it fits at all."""
        self.pop(key)
        size = self._size(key, value)
        if size > self._max_size:
            return False
        self._entries[key] = value
        self.size += size
        while self.size > self._max_size:
            self.pop(next(iter(self._entries)))
            self.evictions += 1
        return True

    def pop(self, key: K) -> V | None:
        """Drop and return a value; None where there is none."""
        value = self._entries.pop(key, None)
        if value is not None:
            self.size -= self._size(key, value)
            if self._on_leave is not None:
                self._on_leave(key, value)
        return value

    def clear(self) -> None:
        """Drop all."""
        for key in tuple(self._entries):
            self.pop(key)

    def _size(self, key: K, value: V) -> int:
        return 1 if self._size_of is None else self._size_of(key, value)
