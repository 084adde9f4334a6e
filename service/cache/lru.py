"""A least recently used table."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, ItemsView
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruTable(Generic[K, V]):
    """The most recently used values, up to a total size of `max_size`: their number, or the sum of `size_of` if given.

    `size` is the current total, `evictions` counts values that left for lack of room. `on_leave` is called for each
    value that leaves, whatever the reason.
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
        """Return keys and values, least recently used first."""
        return self._entries.items()

    def get(self, key: K) -> V | None:
        """Return a value and mark it as just used."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> bool:
        """Store a value, replacing the key's previous one and evicting others to make room. Return whether it fits at
        all."""
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
        """Remove and return a value; None if there is none."""
        value = self._entries.pop(key, None)
        if value is not None:
            self.size -= self._size(key, value)
            if self._on_leave is not None:
                self._on_leave(key, value)
        return value

    def clear(self) -> None:
        """Remove all values."""
        for key in tuple(self._entries):
            self.pop(key)

    def _size(self, key: K, value: V) -> int:
        return 1 if self._size_of is None else self._size_of(key, value)
