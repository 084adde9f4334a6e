"""Blocks are encoded once and cut without being decoded."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from service.model.blocks import block_of, block_of_task, single_task
from service.model.queries import At, FromNow, Moment, Query
from service.model.tasks import Listing, Task


def _task(number: int, *, status: str = "dispatched") -> Task:
    return Task(
        id=number,
        type="all",
        status=status,
        title=f'title, "{number}"',
        description="…],[",
        created_at="2025-05-20T08:30:00Z",
        scheduled_at=None,
        dispatched=True,
        dispatch_error=None,
        push_task_id=None,
        content=msgspec.Raw(b'{"a":[1,{"b":"}"}]}'),
    )


def _query(since: Moment, until: Moment) -> Query:
    return Query(app="shop", since=since, until=until)


_PAST = _query(At(epoch_s=0), At(epoch_s=1_000))


@given(count=st.integers(0, 7), start=st.integers(0, 9), stop=st.integers(0, 9))
def test_a_cut_has_exactly_the_requested_records(count: int, start: int, stop: int) -> None:
    """Whatever the bounds, the cut is the JSON of the same slice of the list, and nothing is lost from `content`."""
    tasks = tuple(_task(number) for number in range(count))
    listing = Listing(total=count, tasks=tasks)
    block = block_of(listing, query=_PAST, range_=_PAST.range_at(0, align_s=1), fetched_at_ms=5)
    records = msgspec.json.decode(b"[" + block.cut(start, stop) + b"]")
    assert records == [msgspec.json.decode(msgspec.json.encode(task)) for task in tasks[start:stop]]


def _settled(query: Query, *, now_s: int, status: str = "dispatched") -> bool:
    listing = Listing(total=2, tasks=(_task(1), _task(2, status=status)))
    range_ = query.range_at(now_s, align_s=1)
    return block_of(listing, query=query, range_=range_, fetched_at_ms=now_s * 1000).settled


def test_a_block_is_settled_when_nothing_in_it_can_change() -> None:
    """Its range has ended and all its tasks are dispatched; one pending task, or a range that continues, unsettles
    it."""
    assert _settled(_PAST, now_s=1_001)
    assert not _settled(_PAST, now_s=999)
    assert not _settled(_PAST, now_s=1_001, status="pending")
    assert not _settled(_PAST, now_s=1_001, status="a-status-of-tomorrow")


def test_a_relative_range_never_ends() -> None:
    """`until` one hour ago moves on with the clock, so new tasks come into its range."""
    assert not _settled(_query(At(epoch_s=0), FromNow(offset_s=-3_600)), now_s=10_000)


@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=9), asked=st.integers(-(2**63), 2**63 - 1))
def test_a_task_of_a_block_is_what_its_own_fetch_would_have_stored(ids: list[int], asked: int) -> None:
    """Each id of the block, and no other, yields the block that `get_sched_task` would make of the same task."""
    tasks = {id_: _task(id_, status=("pending", "dispatched")[id_ % 2]) for id_ in ids}
    listing = Listing(total=len(ids), tasks=tuple(tasks.values()))
    block = block_of(listing, query=_PAST, range_=_PAST.range_at(0, align_s=1), fetched_at_ms=5)
    for id_, task in tasks.items():
        assert single_task(block, id_) == block_of_task(task, fetched_at_ms=5)
    assert asked in tasks or single_task(block, asked) is None


def test_an_id_across_two_others_is_not_found() -> None:
    """The bytes of an id may occur at the border of two ids that are stored side by side."""
    ids = (0x0101010102020202, 0x0303030304040404)
    listing = Listing(total=2, tasks=tuple(map(_task, ids)))
    block = block_of(listing, query=_PAST, range_=_PAST.range_at(0, align_s=1), fetched_at_ms=5)
    assert single_task(block, 0x0202020203030303) is None


def test_a_single_task_is_settled_when_dispatched() -> None:
    """A dispatched task is settled, whatever range it was listed in."""
    assert block_of_task(_task(1), fetched_at_ms=5).settled
    assert not block_of_task(_task(1, status="pending"), fetched_at_ms=5).settled
    assert not block_of_task(_task(1, status="dispatching"), fetched_at_ms=5).settled
