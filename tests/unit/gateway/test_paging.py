"""Pages and chunks cut from blocks, and their missing tasks."""

import msgspec
import pytest

from service.gateway.paging import Part, chunk_of, page_of
from service.model.blocks import Block
from service.model.callers import Caller
from service.model.freshness import CacheDirectives
from service.model.pages import PageRequest, Source
from service.model.queries import At, Query, Range, Slice

CALLER = Caller(name="c", apps=frozenset({"shop"}), weight=1, waiting_max=1, wait_max_s=1)


def part(first: int, count: int, *, total: int, left_out: int = 0, changed: bool = False, until_s: int = 1) -> Part:
    """A block of tasks with nothing but ids."""
    records = [msgspec.json.encode({"id": number}) for number in range(first, first + count)]
    ends = [len(b",".join(records[: place + 1])) for place in range(count)]
    block = Block(
        fetched_at_ms=1,
        range=Range(since_s=0, until_s=until_s),
        total=total,
        settled=False,
        ends=tuple(ends),
        body=b",".join(records),
        left_out=left_out,
        changed=changed,
    )
    return Part(block=block, source=Source.HIT)


def ask(offset: int, limit: int) -> PageRequest:
    """A request for a slice."""
    query = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=1))
    slice_ = Slice(offset=offset, limit=limit)
    return PageRequest(caller=CALLER, query=query, slice=slice_, patience_s=1, directives=CacheDirectives())


@pytest.mark.parametrize(
    ("offset", "limit", "parts", "expected", "missing"),
    [
        (0, 4, [part(0, 10, total=25)], [0, 1, 2, 3], 0),
        (8, 4, [part(0, 10, total=25), part(10, 10, total=25)], [8, 9, 10, 11], 0),
        (18, 9, [part(10, 10, total=25), part(20, 5, total=25)], [18, 19, 20, 21, 22, 23, 24], 0),
        (30, 4, [part(30, 0, total=25)], [], 0),
        (4, 4, [part(0, 6, total=25)], [4, 5], 2),
        (0, 4, [part(0, 6, total=25)], [0, 1, 2, 3], 0),
        (6, 8, [part(0, 9, total=25, left_out=1), part(10, 10, total=25)], [6, 7, 8, 10, 11, 12, 13], 1),
        (18, 9, [part(10, 10, total=25), part(20, 2, total=25)], [18, 19, 20, 21], 3),
    ],
)
def test_a_page_counts_what_it_lacks(
    offset: int, limit: int, parts: list[Part], expected: list[int], missing: int
) -> None:
    """A page counts the tasks that it lacks: the upstream returned fewer than it counts, or one without an id."""
    page = page_of(ask(offset, limit), parts, block_size=10, lifetime_s=1, budget=None)
    assert [record["id"] for record in msgspec.json.decode(b"[" + page.body + b"]")] == expected
    assert page.missing == missing


@pytest.mark.parametrize(
    ("offset", "one", "missing", "is_short", "is_empty"),
    [
        (10, part(10, 10, total=25), 0, False, False),
        (20, part(20, 5, total=25), 0, False, False),
        (10, part(10, 8, total=25), 2, True, False),
        (10, part(10, 8, total=25, left_out=2), 2, False, False),
        (19, part(10, 9, total=25, left_out=1), 1, False, False),
        (10, part(10, 10, total=25, changed=True), 0, True, False),
        (10, part(10, 0, total=25), 10, True, True),
    ],
)
def test_a_chunk_says_what_it_lacks(offset: int, one: Part, missing: int, is_short: bool, is_empty: bool) -> None:
    """A chunk says how many tasks it lacks, whether the list was seen to change, and whether it is empty
    unexpectedly."""
    chunk = chunk_of(ask(offset, 100), one, block_size=10, lifetime_s=15.0, budget=None)
    assert (chunk.missing, chunk.is_short, chunk.is_empty) == (missing, is_short, is_empty)


@pytest.mark.parametrize(
    ("parts", "changed"),
    [
        ([part(0, 10, total=25), part(10, 10, total=25)], False),
        ([part(0, 10, total=25), part(9, 10, total=25)], True),
        ([part(0, 10, total=25), part(10, 10, total=26)], True),
        ([part(0, 10, total=25), part(10, 10, total=25, until_s=61)], True),
        ([part(0, 10, total=25), part(10, 10, total=25, changed=True)], True),
        ([part(0, 10, total=25, changed=True)], True),
        ([part(0, 10, total=25)], False),
    ],
    ids=["as it should be", "one twice", "another total", "another range", "changed in one", "only one", "one block"],
)
def test_a_page_says_that_its_list_has_changed(parts: list[Part], changed: bool) -> None:
    """Its blocks were fetched at different times; signs that the list has moved on in between are reported."""
    page = page_of(ask(5, 10), parts, block_size=10, lifetime_s=1, budget=None)
    assert page.consistent is not changed
