"""Bounds the bytes buffered for connections in this process: unread responses and incomplete requests."""

from typing import Protocol

from service.server.exchange import AbortReason

SHRUNK_BYTES = 8 * 1024 * 1024


class AbortableConnection(Protocol):
    """A connection."""

    def abort(self, reason: AbortReason) -> None:
        """Close it without sending what it holds; its count is already 0."""
        ...


class BufferedBytes:
    """Counts bytes by connection, ordered by when each began to hold some."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: dict[AbortableConnection, int] = {}
        self.total = 0
        self.peak = 0
        """The maximum of `total` since `has_shrunk` last returned true."""

    def set(self, holder: AbortableConnection, count: int) -> None:
        """Count a connection's bytes. Beyond the bound, abort the connections that have held bytes for longest."""
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
        """Return whether far fewer bytes are held than before, so that releasing the freed memory is worthwhile."""
        if self.peak < SHRUNK_BYTES or self.total > self.peak // 4:
            return False
        self.peak = self.total
        return True
