"""Cuts the requested slice out of the blocks that hold it."""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from service.model.blocks import Block
from service.model.budgets import BudgetNote
from service.model.freshness import StaleReason
from service.model.pages import Chunk, Forward, Page, PageRequest, Source


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One block of a page, and how it was obtained."""

    block: Block
    source: Source
    stale_reason: StaleReason | None = None
    forward: Forward | None = None


def page_of(
    request: PageRequest, parts: Sequence[Part], *, block_size: int, lifetime_s: float, budget: BudgetNote | None
) -> Page:
    """Return the slice from its one or two blocks; times are those of the older, the total is that of the newer."""
    start, stop = request.slice.offset, request.slice.offset + request.slice.limit
    base = start // block_size * block_size
    bodies: list[bytes] = []
    count = 0
    for part in parts:
        first, last = max(start - base, 0), min(stop - base, len(part.block.ends))
        if first < last:
            bodies.append(part.block.cut(first, last))
            count += last - first
        base += block_size
    page = summary_of(request, parts, lifetime_s=lifetime_s, budget=budget)
    body = b",".join(bodies)
    return replace(
        page,
        body=body,
        missing=max(min(stop, page.total) - start - count, 0),
        consistent=not _has_changed(parts, body),
    )


def summary_of(request: PageRequest, parts: Sequence[Part], *, lifetime_s: float, budget: BudgetNote | None) -> Page:
    """Return a page without tasks: times are those of the oldest block, the total is that of the newest."""
    first, *more = parts
    oldest = newest = first.block
    source, stale_reason, forward = first.source, first.stale_reason, first.forward
    for part in more:
        if part.block.fetched_at_ms < oldest.fetched_at_ms:
            oldest = part.block
        elif part.block.fetched_at_ms > newest.fetched_at_ms:
            newest = part.block
        source = max(source, part.source, key=_RANK.__getitem__)
        stale_reason = stale_reason or part.stale_reason
        forward = forward or part.forward
    return Page(
        query=request.query,
        slice=request.slice,
        range=oldest.range,
        total=newest.total,
        fetched_at_ms=oldest.fetched_at_ms,
        lifetime_s=lifetime_s,
        body=b"",
        source=source,
        stale_reason=stale_reason,
        forward=forward,
        budget=budget,
    )


class _Identified(msgspec.Struct, frozen=True):
    id: int


_records = msgspec.json.Decoder(list[_Identified])


def _has_changed(parts: Sequence[Part], body: bytes) -> bool:
    """Return whether the blocks of a slice, which were fetched at different times, visibly disagree."""
    first, *more = (part.block for part in parts)
    if first.changed or any(block.changed for block in more):
        return True
    if not more:
        return False
    if any(block.total != first.total or block.range != first.range for block in more):
        return True
    ids = [record.id for record in _records.decode(b"[" + body + b"]")]
    return len(set(ids)) < len(ids)


def chunk_of(
    request: PageRequest, part: Part, *, block_size: int, lifetime_s: float, budget: BudgetNote | None
) -> Chunk:
    """Return the part of the slice in this block, which contains its beginning."""
    block = part.block
    start = request.slice.offset % block_size
    base = request.slice.offset - start
    following = base + block_size
    stop = min(start + request.slice.limit, block_size)
    records = block.records(start, stop)
    return Chunk(
        records=records,
        total=block.total,
        following=following if following < block.total else None,
        is_short=block.changed or block.received < min(block_size, block.total - base),
        is_empty=block.received == 0,
        missing=max(min(stop, block.total - base) - start - len(records), 0),
        fetched_at_ms=block.fetched_at_ms,
        range=block.range,
        lifetime_s=lifetime_s,
        source=part.source,
        budget=budget,
    )


_RANK = {Source.HIT: 0, Source.JOINED: 1, Source.FETCHED: 2, Source.STALE: 3}
