"""Filtered pages: a slice of the tasks that match a filter, which may be in any block of the query's list."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import compress

from msgspec.structs import replace

from service.gateway.paging import Part, summary_of
from service.model.blocks import Block
from service.model.budgets import BudgetNote
from service.model.errors import RangeTooWide
from service.model.pages import Page, PageRequest

IN_FLIGHT = 2
"""How many blocks one request fetches at a time while no other request needs the budget."""

Recall = Callable[[int], Part | None]
"""Returns a block if memory has a fresh one."""
Obtain = Callable[[int, float], Awaitable[Part]]
"""Returns a block, stored or fetched, within the given patience in seconds. Raises the same errors as a page."""


async def all_blocks(
    request: PageRequest,
    *,
    recall: Recall,
    obtain: Obtain,
    is_budget_free: Callable[[], bool],
    now_s: Callable[[], float],
    block_size: int,
) -> list[Part]:
    """Return all blocks of the query's list, within the total patience of `request`.

    Raise RangeTooWide, after one block, if the list has more than `filter_max_blocks` blocks; also raise any error of
    `obtain`. May be cancelled.
    """
    ends_at_s = now_s() + request.patience_s
    parts: dict[int, Part] = {}
    parts[0] = recall(0) or await obtain(0, request.patience_s)
    while True:
        count = _count(parts, request, block_size=block_size)
        missing: list[int] = []
        for index in range(count):
            if index not in parts:
                if (hit := recall(index)) is not None:
                    parts[index] = hit
                else:
                    missing.append(index)
        if count == _count(parts, request, block_size=block_size) and not missing:
            return [parts[index] for index in range(count)]
        wave = missing[: IN_FLIGHT if is_budget_free() else 1]
        patience_s = max(ends_at_s - now_s(), 0.0)
        parts.update(zip(wave, await _together([obtain(index, patience_s) for index in wave]), strict=True))


def filtered_page(
    request: PageRequest, parts: Sequence[Part], *, block_size: int, lifetime_s: float, budget: BudgetNote | None
) -> Page:
    """Cut the slice from the matching tasks of all blocks, each task once.

    Freshness is that of the oldest block. `consistent` is false if totals differ, a task is in two blocks or a block is
    short: the list has changed between two fetches.
    """
    blocks = [part.block for part in parts]
    total = max(blocks, key=lambda block: block.fetched_at_ms).total
    flags = [request.only.matches(block.codes) for block in blocks]
    ids = [block.task_ids() for block in blocks]
    is_repeated = len(set().union(*ids)) < sum(map(len, ids))
    if is_repeated:
        flags = _first_of_each(flags, ids)
    expected = [max(min(block_size, total - index * block_size), 0) for index in range(len(blocks))]
    is_short = any(block.received < number for block, number in zip(blocks, expected, strict=True))
    is_changed = any(block.changed or block.total != total for block in blocks)
    return replace(
        summary_of(request, parts, lifetime_s=lifetime_s, budget=budget),
        only=request.only,
        total=sum(each.count(1) for each in flags),
        body=b",".join(_cut(blocks, flags, request.slice.offset, request.slice.offset + request.slice.limit)),
        missing=sum(max(number - len(block.ends), 0) for block, number in zip(blocks, expected, strict=True)),
        consistent=not (is_repeated or is_short or is_changed),
    )


def _count(parts: dict[int, Part], request: PageRequest, *, block_size: int) -> int:
    """Return how many blocks the list has, according to the newest of those present."""
    newest = max((part.block for part in parts.values()), key=lambda block: block.fetched_at_ms)
    count = max(-(-newest.total // block_size), 1)
    if count > request.filter_max_blocks:
        raise RangeTooWide(total=newest.total, bound=request.filter_max_blocks * block_size)
    return count


async def _together(waiting: Sequence[Awaitable[Part]]) -> list[Part]:
    """Await all; on failure or cancellation, cancel and await the others as well."""
    if len(waiting) == 1:
        return [await waiting[0]]
    tasks = [asyncio.ensure_future(each) for each in waiting]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _cut(blocks: Sequence[Block], flags: Sequence[bytes], start: int, stop: int) -> list[bytes]:
    """Return the JSON text of the flagged records from `start` up to `stop`, counted over all blocks."""
    bodies: list[bytes] = []
    passed = 0
    for block, matches in zip(blocks, flags, strict=True):
        matched = matches.count(1)
        if passed < stop and passed + matched > start:
            places = list(compress(range(len(block.ends)), matches))
            first, last = max(start - passed, 0), stop - passed
            bodies.extend(block.cut(place, place + 1) for place in places[first:last])
        passed += matched
    return bodies


def _first_of_each(flags: Sequence[bytes], ids: Sequence[Sequence[int]]) -> list[bytes]:
    """Return the flags, cleared for tasks that already appeared earlier."""
    seen: set[int] = set()
    once: list[bytes] = []
    for matches, numbers in zip(flags, ids, strict=True):
        kept = bytearray(matches)
        for place, number in enumerate(numbers):
            if number in seen:
                kept[place] = 0
            seen.add(number)
        once.append(bytes(kept))
    return once
