"""Filtered pages: which blocks are obtained, and how the page is cut from them."""

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.gateway.filtered import all_blocks, filtered_page
from service.gateway.paging import Part
from service.model.blocks import Block, block_of
from service.model.callers import Caller
from service.model.errors import LineFull, RangeTooWide, WaitTooLong
from service.model.freshness import CacheDirectives
from service.model.pages import Page, PageRequest, Source
from service.model.queries import At, Query, Range, Slice
from service.model.streams import STATUSES, TYPES, TaskFilter
from service.model.tasks import Listing, Task
from tests.tasks import bare_task

SIZE = 10
CALLER = Caller(name="c", apps=frozenset({"shop"}), weight=1, waiting_max=1, wait_max_s=1)
QUERY = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=1))


def task(number: int, *, status: str | None = "pending", type_: str | None = "tag") -> Task:
    """A task with these labels."""
    content = msgspec.Raw(b'{"status":"dispatched"}')
    return bare_task(number, type=type_, status=status, title=f"#{number}", content=content)


def block(tasks: Sequence[Task], *, total: int, fetched_at_ms: int = 1) -> Block:
    """A block as a fetch makes it."""
    listing = Listing(total=total, tasks=tuple(tasks))
    return block_of(listing, query=QUERY, range_=Range(since_s=0, until_s=1), fetched_at_ms=fetched_at_ms)


def blocks(tasks: Sequence[Task]) -> list[Block]:
    """A list that has not changed, in blocks."""
    starts = range(0, max(len(tasks), 1), SIZE)
    return [block(tasks[start : start + SIZE], total=len(tasks)) for start in starts]


def ask(only: TaskFilter, *, offset: int = 0, limit: int = 5, patience_s: float = 5.0, most: int = 10) -> PageRequest:
    """A request for a slice of the tasks that match a filter."""
    return PageRequest(
        caller=CALLER,
        query=QUERY,
        slice=Slice(offset=offset, limit=limit),
        patience_s=patience_s,
        directives=CacheDirectives(),
        only=only,
        filter_max_blocks=most,
    )


def cut(request: PageRequest, each: Sequence[Block]) -> Page:
    """The page of these blocks."""
    parts = [Part(block=one, source=Source.HIT) for one in each]
    return filtered_page(request, parts, block_size=SIZE, lifetime_s=15.0, budget=None)


def ids(page: Page) -> list[int]:
    """The tasks of a page."""
    return [each["id"] for each in msgspec.json.decode(b"[" + page.body + b"]")]


labels = st.tuples(st.sampled_from((None, "new", *STATUSES)), st.sampled_from((None, "new", *TYPES)))
choices = st.builds(
    TaskFilter,
    statuses=st.lists(st.sampled_from(STATUSES), unique=True).map(tuple),
    types=st.sampled_from(((), *zip(TYPES))),
)


@given(st.lists(labels, max_size=60), choices, st.integers(0, 70), st.integers(1, SIZE))
def test_a_filtered_page_is_a_slice_of_the_filtered_list(
    listed: list[tuple[str | None, str | None]], only: TaskFilter, offset: int, limit: int
) -> None:
    """Total, slice and order are those of the list that remains when the others are removed."""
    tasks = [task(number, status=status, type_=type_) for number, (status, type_) in enumerate(listed)]
    wanted = [
        each.id
        for each in tasks
        if (not only.statuses or each.status in only.statuses) and (not only.types or each.type in only.types)
    ]
    page = cut(ask(only, offset=offset, limit=limit), blocks(tasks))
    assert (ids(page), page.total, page.consistent, page.missing) == (
        wanted[offset : offset + limit],
        len(wanted),
        True,
        0,
    )


@pytest.mark.parametrize(
    ("each", "left", "missing"),
    [
        ([block([task(n) for n in range(10)], total=12), block([task(11), task(9)], total=12)], range(10), 0),
        (
            [block([task(n) for n in range(10)], total=13), block([task(10), task(11)], total=12, fetched_at_ms=2)],
            range(10),
            0,
        ),
        ([block([task(n) for n in range(9)], total=12), block([task(10), task(11)], total=12)], range(11), 1),
    ],
)
def test_a_change_of_the_list_is_reported(each: list[Block], left: range, missing: int) -> None:
    """A task in two blocks, totals that differ, a short block; no task appears twice."""
    page = cut(ask(TaskFilter(statuses=("pending",)), limit=10), each)
    assert not page.consistent
    assert len(ids(page)) == len(set(ids(page)))
    assert page.total == len({number for one in each for number in one.task_ids()})
    assert set(left) >= set(ids(page))
    assert page.missing == missing


def test_freshness_is_that_of_the_oldest_block() -> None:
    """Age and range are the oldest block's, wherever the tasks of the slice are."""
    tasks = [task(number) for number in range(12)]
    each = [
        block(tasks[:10], total=12, fetched_at_ms=9_000),
        block(tasks[10:], total=12, fetched_at_ms=4_000),
    ]
    assert cut(ask(TaskFilter(types=("tag",))), each).fetched_at_ms == 4_000


class Blocks:
    """A source of blocks: `stored` at once, others after a while; records the requests and their concurrency."""

    def __init__(self, listed: Sequence[Block], *, stored: Sequence[int] = (), is_free: bool = True) -> None:
        self.listed = list(listed)
        self.stored = stored
        self.is_free = is_free
        self.asked: list[int] = []
        self.patience_s: list[float] = []
        self.at_once = self.most_at_once = 0
        self.now_s = 0.0
        self.errors: dict[int, Exception] = {}
        self.cancelled: list[int] = []

    def recall(self, index: int) -> Part | None:
        """Return the stored block."""
        return Part(block=self.listed[index], source=Source.HIT) if index in self.stored else None

    async def obtain(self, index: int, patience_s: float) -> Part:
        """Return the block after a second."""
        self.asked.append(index)
        self.patience_s.append(patience_s)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if index in self.errors:
                raise self.errors[index]
            await asyncio.sleep(0.001)
            self.now_s += 1
            return Part(block=self.listed[index], source=Source.FETCHED)
        except asyncio.CancelledError:
            self.cancelled.append(index)
            raise
        finally:
            self.at_once -= 1

    async def all(self, request: PageRequest) -> list[Part]:
        """Return all tasks."""
        return await all_blocks(
            request,
            recall=self.recall,
            obtain=self.obtain,
            is_budget_free=lambda: self.is_free,
            now_s=lambda: self.now_s,
            block_size=SIZE,
        )


PENDING = TaskFilter(statuses=("pending",))


async def test_stored_blocks_are_not_fetched() -> None:
    """Blocks fresh in memory cost nothing; the others are fetched two at a time while the budget is free."""
    source = Blocks(blocks([task(number) for number in range(95)]), stored=(0, 3, 4))
    parts = await source.all(ask(PENDING))
    assert [part.block for part in parts] == source.listed
    assert sorted(source.asked) == [1, 2, 5, 6, 7, 8, 9]
    assert source.most_at_once == 2


async def test_blocks_are_fetched_one_at_a_time_if_others_need_the_budget() -> None:
    """If others need the budget, blocks are fetched one at a time, with the patience of the whole page."""
    source = Blocks(blocks([task(number) for number in range(40)]), is_free=False)
    await source.all(ask(PENDING, patience_s=2.5))
    assert (source.asked, source.most_at_once) == ([0, 1, 2, 3], 1)
    assert source.patience_s == [2.5, 1.5, 0.5, 0.0]


async def test_a_range_that_is_too_wide_costs_one_block() -> None:
    """The first block gives the total; the error names it and the bound."""
    source = Blocks(blocks([task(number) for number in range(41)]))
    with pytest.raises(RangeTooWide, match="narrow since and until, or stream") as raised:
        await source.all(ask(PENDING, most=4))
    assert (raised.value.total, raised.value.bound, source.asked) == (41, 40, [0])
    assert len(await source.all(ask(PENDING, most=5))) == 5


async def test_a_list_that_grows_meanwhile_is_read_to_its_end() -> None:
    """The newest total says how many blocks there are."""
    tasks = [task(number) for number in range(25)]
    listed = [
        block(tasks[:10], total=12, fetched_at_ms=1),
        block(tasks[10:20], total=25, fetched_at_ms=2),
        block(tasks[20:], total=25, fetched_at_ms=3),
    ]
    parts = await Blocks(listed).all(ask(PENDING))
    assert len(parts) == 3
    assert not cut(ask(PENDING), [part.block for part in parts]).consistent


@pytest.mark.parametrize(
    "error", [WaitTooLong(place=1, estimate_s=1, patience_s=0), LineFull(bound=1, retry_after_s=1)]
)
async def test_a_failure_ends_what_was_under_way(error: Exception) -> None:
    """The error is the page's, and the other block is no longer waited for."""
    source = Blocks(blocks([task(number) for number in range(30)]), stored=(0,))
    source.errors[2] = error
    with pytest.raises(type(error)):
        await source.all(ask(PENDING))
    assert source.cancelled == [1]
    assert source.at_once == 0
