"""Who pages on in order, and so will soon want the next block."""

from service.cache.lru import LruTable
from service.model.queries import Query, Slice

WALKS_MAX = 1000
"""How many sequential readers a replica remembers; the one that stood still longest is forgotten first."""


class SequentialReads:
    """Where each caller stands in the queries that it pages through."""

    def __init__(self, *, block_size: int, most: int = WALKS_MAX) -> None:
        self._block_size = block_size
        self._stops: LruTable[tuple[str, Query], int] = LruTable(most)

    def __len__(self) -> int:
        return len(self._stops)

    def step(self, caller: str, query: Query, slice_: Slice, *, total: int) -> int | None:
        """Note a slice. Tells the block that the caller will want next, where it is time to fetch that.

        It is time when the slice begins where the last one ended, and what is left of its block is no more than one
        slice as long. Nothing lies ahead of the list's end.
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
