"""Streams of long ranges over an upstream that refuses them whole: random lists, ranges, filters and offsets."""

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gateway.paging import Part, chunk_of
from service.model.blocks import block_of
from service.model.callers import Caller
from service.model.freshness import CacheDirectives
from service.model.long_lists import ListPosition, query_parts
from service.model.pages import Chunk, PageRequest, Source
from service.model.queries import At, Query, Slice, Sort
from service.model.streams import TaskFilter
from service.model.tasks import Listing
from service.sandbox.listing import ListRequest, SandboxTasks, read_body
from service.sandbox.tasks import SandboxTask
from service.upstream.apps import UpstreamApp
from service.upstream.list_call import list_body, read_listing
from service.web.stream import StreamProgress

DAY_S = 86_400
DAYS = 4
BLOCK = 3
APP = UpstreamApp(name="shop", sdkappid=1, admin="a", hosts=())
CALLER = Caller(name="c", apps=frozenset({"shop"}), weight=1, waiting_max=1, wait_max_s=1)
EVERYTHING = TaskFilter()
BEGIN_S = 1_700_000_000
NOW_S = BEGIN_S + 20 * DAY_S
TIMES = st.integers(-5 * DAY_S, 45 * DAY_S) | st.sampled_from(
    [seam * 3 * DAY_S - BEGIN_S % (3 * DAY_S) + off for seam in range(10) for off in (-1, 0, 1)]
)


class Upstream:
    """The sandbox's list, called as the gateway calls it; refuses ranges longer than `days`."""

    def __init__(self, tasks: list[SandboxTask], *, days: int) -> None:
        self.days = days
        self.calls = 0
        self._tasks = SandboxTasks(iter(tasks), total=len(tasks))

    def chunk(self, query: Query, offset: int) -> Chunk:
        """Return the part of a list that the block at the offset holds."""
        range_ = query.range_at(NOW_S, align_s=60)
        first = offset // BLOCK * BLOCK
        body = list_body(APP, query, range_, offset=first, want=BLOCK, order_by="lower")
        wanted = read_body(body, sdkappid=1, range_max_days=self.days, want_max=None)
        assert isinstance(wanted, ListRequest), wanted
        self.calls += 1
        page = self._tasks.page(wanted, sdkappid=1, now_s=NOW_S)
        listing = read_listing(msgspec.json.encode(page), sdkappid=1, offset=first, want=BLOCK)
        assert isinstance(listing, Listing)
        block = block_of(listing, query=query, range_=range_, fetched_at_ms=1)
        ask = PageRequest(
            caller=CALLER,
            query=query,
            slice=Slice(offset=offset, limit=BLOCK),
            patience_s=1,
            directives=CacheDirectives(),
        )
        part = Part(block=block, source=Source.FETCHED)
        return chunk_of(ask, part, block_size=BLOCK, lifetime_s=1, budget=None)


def streamed(
    upstream: Upstream, parts: tuple[Query, ...], *, offset: int = 0, only: TaskFilter = EVERYTHING
) -> tuple[list[int], dict[str, Any]]:
    """Read a stream to its end; return the ids in order, and the last line."""
    position: ListPosition | None = ListPosition(parts=parts, offset=offset)
    assert position is not None
    chunk = upstream.chunk(position.query, position.offset)
    course = StreamProgress(chunk, only)
    lines = course.lines(chunk, part=position.part)
    while (position := position.after(chunk)) is not None:
        chunk = upstream.chunk(position.query, position.offset)
        lines += course.lines(chunk, part=position.part)
    end = json.loads(course.last_line(problem=None, following=None))["end"]
    return [json.loads(line)["id"] for line in lines.splitlines()], end


@st.composite
def lists(draw: st.DrawFn) -> list[SandboxTask]:
    """Return tasks of any times, many at the seams of parts and many at the same time."""
    times = draw(st.lists(st.tuples(TIMES, TIMES), max_size=40))
    return [
        SandboxTask(
            id=number,
            created_s=BEGIN_S + created_s,
            scheduled_s=BEGIN_S + scheduled_s,
            title="sale" if number % 3 else "news",
            description="",
            type=("All", "Tag")[number % 2],
        )
        for number, (created_s, scheduled_s) in enumerate(times, start=1)
    ]


@given(
    tasks=lists(),
    since_s=st.integers(-3 * DAY_S, 20 * DAY_S),
    length_s=st.integers(0, 25 * DAY_S),
    sort=st.sampled_from(Sort),
    keyword=st.sampled_from([None, "sale"]),
    only=st.sampled_from([TaskFilter(), TaskFilter(statuses=("pending",)), TaskFilter(types=("tag",))]),
    offset=st.integers(0, 45),
)
@settings(max_examples=500)
def test_parts_make_the_whole_list(
    tasks: list[SandboxTask],
    since_s: int,
    length_s: int,
    sort: Sort,
    keyword: str | None,
    only: TaskFilter,
    offset: int,
) -> None:
    """A stream in parts sends what a stream of the whole range sends: each task once, in order, with the same end."""
    query = Query(
        app="shop",
        since=At(epoch_s=BEGIN_S + since_s),
        until=At(epoch_s=BEGIN_S + since_s + length_s),
        sort=sort,
        keyword=keyword,
    )
    parts = query_parts(query, now_s=NOW_S, align_s=60, longest_s=DAYS * DAY_S)
    whole_ids, whole_end = streamed(Upstream(tasks, days=10_000), (query,), offset=offset, only=only)
    ids, end = streamed(Upstream(tasks, days=DAYS), parts, offset=offset, only=only)
    assert ids == whole_ids
    assert end == whole_end
    assert not end["changed"]


@given(tasks=lists(), cut=st.integers(0, 40))
@settings(max_examples=100)
def test_a_stream_can_be_continued_where_it_ended(tasks: list[SandboxTask], cut: int) -> None:
    """The place of any position, as the offset of another stream, leads to the rest, once each."""
    query = Query(app="shop", since=At(epoch_s=BEGIN_S), until=At(epoch_s=BEGIN_S + 30 * DAY_S))
    parts = query_parts(query, now_s=NOW_S, align_s=60, longest_s=DAYS * DAY_S)
    upstream = Upstream(tasks, days=DAYS)
    everything, _ = streamed(upstream, parts)
    position, read = ListPosition(parts=parts), 0
    for _ in range(cut):
        chunk = upstream.chunk(position.query, position.offset)
        following = position.after(chunk)
        if following is None:
            break
        position, read = following, read + len(chunk.records)
    assert position.place == read
    rest, _ = streamed(upstream, parts, offset=position.place)
    assert rest == everything[read:]


def test_a_long_range_costs_one_call_for_each_block() -> None:
    """One call for each block, and one for each part without a task; skipped parts cost one call each."""
    query = Query(app="shop", since=At(epoch_s=BEGIN_S), until=At(epoch_s=BEGIN_S + 30 * DAY_S), sort=Sort.SCHEDULED)
    parts = query_parts(query, now_s=NOW_S, align_s=60, longest_s=DAYS * DAY_S)
    tasks = [
        SandboxTask(id=number, created_s=BEGIN_S, scheduled_s=BEGIN_S + number, title="", description="")
        for number in range(1, 8)
    ]
    for offset, calls in ((0, 3 + len(parts) - 1), (7, len(parts)), (1000, len(parts))):
        upstream = Upstream(tasks, days=DAYS)
        _, end = streamed(upstream, parts, offset=offset)
        assert upstream.calls == calls
        assert end["total"] == 7
