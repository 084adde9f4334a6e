"""Lists whose range is longer than the upstream accepts, read as consecutive parts of the range."""

import msgspec
from msgspec.structs import replace

from service.model.pages import Chunk
from service.model.queries import At, Query, Sort

MARGIN_MAX_S = 86_400


def part_s(longest_s: int) -> int:
    """Return the length of the inner parts, in seconds, if the upstream accepts ranges of up to `longest_s`."""
    return longest_s - _margin_s(longest_s)


def query_parts(query: Query, *, now_s: float, align_s: int, longest_s: int) -> tuple[Query, ...]:
    """Return queries whose lists, one after the other, are the list of `query`; just that one if it is short enough.

    Ranges are in whole seconds and include both ends, so that each second belongs to one part. Parts meet at multiples
    of `part_s` since the epoch: queries over the same time share their inner parts, whose moments are absolute. The
    first and the last keep the moment of the query, which may move with the clock; they are shorter than `longest_s` by
    half of the margin, so that a list can be read while they move.
    """
    range_ = query.range_at(now_s, align_s=align_s)
    if range_.until_s - range_.since_s <= longest_s:
        return (query,)
    length_s, apart_s = part_s(longest_s), _margin_s(longest_s) // 2
    first = -(-(range_.since_s + apart_s) // length_s)
    last = (range_.until_s - apart_s) // length_s
    seams_s = [number * length_s for number in range(first, last + 1)]
    starts = (query.since, *(At(epoch_s=seam_s) for seam_s in seams_s))
    ends = (*(At(epoch_s=seam_s - 1) for seam_s in seams_s), query.until)
    parts = [replace(query, since=since, until=until) for since, until in zip(starts, ends, strict=True)]
    descends = query.sort in (Sort.SCHEDULED_DESC, Sort.CREATED_DESC)
    return tuple(reversed(parts) if descends else parts)


class ListPosition(msgspec.Struct, frozen=True, kw_only=True):
    """The next task to read: at `offset` in the list of a part, after `before` tasks in earlier parts."""

    parts: tuple[Query, ...]
    part: int = 0
    offset: int = 0
    before: int = 0

    @property
    def query(self) -> Query:
        """The part to read from."""
        return self.parts[self.part]

    @property
    def place(self) -> int:
        """The offset in the whole list."""
        return self.before + self.offset

    def after(self, chunk: Chunk) -> "ListPosition | None":
        """Return the position after a chunk from here; None at the end of the list.

        An offset beyond the end of a part counts in the next one.
        """
        if chunk.following is not None:
            return replace(self, offset=chunk.following)
        if self.part + 1 == len(self.parts):
            return None
        return replace(
            self,
            part=self.part + 1,
            offset=max(self.offset - chunk.total, 0),
            before=self.before + chunk.total,
        )


def _margin_s(longest_s: int) -> int:
    return min(MARGIN_MAX_S, longest_s // 4)
