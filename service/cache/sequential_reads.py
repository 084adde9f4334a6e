"""Detects callers that page in order and so will soon need the next block."""

from service.cache.lru import LruTable
from service.model.queries import Query, Slice

WALKS_MAX = 1000
"""How many sequential readers a replica remembers; the one idle longest is forgotten first."""


class SequentialReads:
    """Each caller's position in the queries that it pages through."""

    def __init__(self, *, block_size: int, most: int = WALKS_MAX) -> None:
        self._block_size = block_size
        self._stops: LruTable[tuple[str, Query], int] = LruTable(most)

    def __len__(self) -> int:
        return len(self._stops)

    def step(self, caller: str, query: Query, slice_: Slice, *, total: int) -> int | None:
        """Record a slice. Return the block that the caller will need next if it is time to fetch it, else None.

        It is time if the slice begins where the last one ended and the rest of its block is no longer than one such
        slice. Nothing is fetched beyond the end of the list.
        """
        walk = (caller, query)
        stop = slice_.offset + slice_.limit
        in_order = self._stops.pop(walk) == slice_.offset
        if stop >= total:
            return None
        self._stops.put(walk, stop)
        following = -(-stop // self._block_size)
        is_near = following * self._block_size - stop <= slice_.limit
        return following if in_order and is_near and following * self._block_size < total else None
