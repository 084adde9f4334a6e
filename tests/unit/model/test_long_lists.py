"""How ranges longer than the upstream accepts are divided."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.long_lists import part_s, query_parts
from service.model.queries import At, FromNow, Moment, Query, Range, Sort

DAY_S = 86_400
NOW_S = 1_750_000_000.0


def ranges_of(parts: tuple[Query, ...], now_s: float = NOW_S) -> list[Range]:
    """Return the ranges sent for the parts, in the order of time."""
    return sorted((part.range_at(now_s, align_s=60) for part in parts), key=lambda range_: range_.since_s)


def divided(since: Moment, until: Moment, *, days: int, sort: Sort = Sort.SCHEDULED) -> tuple[Query, ...]:
    query = Query(app="shop", since=since, until=until, sort=sort, keyword="sale")
    return query_parts(query, now_s=NOW_S, align_s=60, longest_s=days * DAY_S)


moments = st.one_of(
    st.builds(At, epoch_s=st.integers(0, 4_000_000_000)),
    st.builds(FromNow, offset_s=st.integers(-1_000_000_000, 1_000_000_000)),
)


@given(since=moments, until=moments, days=st.integers(20, 4000), sort=st.sampled_from(Sort))
def test_parts_cover_the_range_once(since: Moment, until: Moment, days: int, sort: Sort) -> None:
    """Each second of the range is in one part, no part is too long, also some hours later, and the order is the sort's.

    Parts other than the first and the last are absolute, and start and end where those of other queries do.
    """
    whole = Query(app="shop", since=since, until=until).range_at(NOW_S, align_s=60)
    if whole.since_s > whole.until_s:
        return
    parts = divided(since, until, days=days, sort=sort)
    ranges = ranges_of(parts)
    assert (ranges[0].since_s, ranges[-1].until_s) == (whole.since_s, whole.until_s)
    assert all(left.until_s + 1 == right.since_s for left, right in pairwise(ranges))
    if len(parts) > 1:
        for now_s in (NOW_S, NOW_S + 10_000):
            assert all(0 < each.until_s - each.since_s <= days * DAY_S for each in ranges_of(parts, now_s))
    for inner in ranges[1:-1]:
        assert inner.since_s % part_s(days * DAY_S) == 0
        assert inner.until_s + 1 == inner.since_s + part_s(days * DAY_S)
    in_order = [part.range_at(NOW_S, align_s=60) for part in parts]
    assert in_order == (ranges if sort in (Sort.SCHEDULED, Sort.CREATED) else ranges[::-1])
    assert {(part.app, part.sort, part.keyword) for part in parts} == {("shop", sort, "sale")}


@pytest.mark.parametrize("days", [1, 2, 3, 5])
def test_parts_fit_a_maximum_of_one_day(days: int) -> None:
    """Even where the upstream accepts a day only, parts fit, with time to spare while the range moves."""
    parts = divided(FromNow(offset_s=-30 * DAY_S), FromNow(offset_s=30 * DAY_S), days=days)
    for now_s in (NOW_S, NOW_S + 9_000):
        assert all(0 < each.until_s - each.since_s <= days * DAY_S for each in ranges_of(parts, now_s))


def test_a_range_of_the_longest_length_is_one_part() -> None:
    """A range of the longest length is one part: the query itself."""
    [part] = divided(FromNow(offset_s=-20 * DAY_S), FromNow(offset_s=10 * DAY_S), days=30)
    assert (part.since, part.until) == (FromNow(offset_s=-20 * DAY_S), FromNow(offset_s=10 * DAY_S))
    assert len(divided(FromNow(offset_s=-20 * DAY_S), FromNow(offset_s=10 * DAY_S + 1), days=30)) > 1


def test_moments_that_move_are_kept_as_written() -> None:
    """The first and the last part keep the query's own moments, so that equal queries share their blocks, too."""
    first, *_, last = divided(FromNow(offset_s=-400 * DAY_S), FromNow(offset_s=0), days=100)
    assert first.since == FromNow(offset_s=-400 * DAY_S)
    assert last.until == FromNow(offset_s=0)
    assert isinstance(first.until, At)
    assert isinstance(last.since, At)


def test_queries_over_the_same_time_share_parts() -> None:
    """Two ranges that overlap have the same inner parts where they do."""
    one = divided(At(epoch_s=1_600_000_000), At(epoch_s=1_750_000_000), days=100)
    other = divided(At(epoch_s=1_610_000_000), At(epoch_s=1_740_000_000), days=100)
    assert set(other[1:-1]) <= set(one)
