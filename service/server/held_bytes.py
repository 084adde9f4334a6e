"""Bounds what connections hold in this process: answers that their readers don't take, and requests not yet whole."""

from typing import Protocol

SHRUNK_BYTES = 8 * 1024 * 1024


class Holder(Protocol):
    """A connection."""

    def abort(self, reason: str) -> None:
        """Close it without sending what it holds; `dropped` has been called before."""
        ...


class HeldBytes:
    """Counts bytes by connection, in the order in which they began to hold some."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[Holder, int] = {}
        self.total = 0
        self.peak = 0
        """The most that `total` has been since `has_shrunk` was true last."""

    def set(self, holder: Holder, count: int) -> None:
        """Count what a connection holds now. Beyond the bound, those that have held bytes for longest are aborted."""
        before = self._held.get(holder)
        if before is None:
            if not count:
                return
            before = 0
        if count:
            self._held[holder] = count
        else:
            del self._held[holder]
        self.total += count - before
        self.peak = max(self.peak, self.total)
        while self.total > self._max_bytes:
            oldest = next(iter(self._held))
            self.set(oldest, 0)
            oldest.abort("unsent")

    def has_shrunk(self) -> bool:
        """Whether much less is held than before: then the memory that this took is worth giving back."""
        if self.peak < SHRUNK_BYTES or self.total > self.peak // 4:
            return False
        self.peak = self.total
        return True
