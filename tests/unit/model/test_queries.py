"""Moments, ranges and slices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.queries import At, FromNow, Query, Range, Slice, Sort, parse_moment, parse_until


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-05-01T00:00:00Z", At(epoch_s=1_746_057_600)),
        ("2025-05-01t00:00:00z", At(epoch_s=1_746_057_600)),
        ("2025-05-01T02:00:00+02:00", At(epoch_s=1_746_057_600)),
        ("2025-04-30T19:30:00.999-04:30", At(epoch_s=1_746_057_600)),
        ("2025-05-01", At(epoch_s=1_746_057_600)),
        ("2016-12-31T23:59:60Z", At(epoch_s=1_483_228_800)),
        ("1970-01-01", At(epoch_s=0)),
        ("-P7D", FromNow(offset_s=-604_800)),
        ("+P1W", FromNow(offset_s=604_800)),
        ("PT90M", FromNow(offset_s=5_400)),
        ("-P1DT2H3M4S", FromNow(offset_s=-93_784)),
        ("P0D", FromNow(offset_s=0)),
        ("-PT0S", FromNow(offset_s=0)),
        ("now", FromNow(offset_s=0)),
    ],
)
def test_moments_are_parsed(text: str, moment: At | FromNow) -> None:
    """Instants, dates and durations become whole seconds; offsets are applied; fractions are dropped."""
    assert parse_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("2025-05-01T00:00:00", "offset"),
        ("2025-02-30", "no such day"),
        ("2025-13-01T00:00:00Z", "no such day"),
        ("2025-05-01T24:00:00Z", "no such time"),
        ("2025-05-01T00:00:00+24:00", "no such offset"),
        ("1969-12-31", "1970"),
        ("0000-01-01", "no such day"),
        ("P1M", "neither"),
        ("P1Y", "neither"),
        ("P", "neither"),
        ("PT", "neither"),
        ("-P1.5D", "neither"),
        ("NaN", "neither"),
        ("", "neither"),
        ("Now", "neither"),
        ("2025-05-01T02:00:00 02:00", "%2B"),
        ("2025-05-01 02:00:00 02:00", "%2B"),
        (" P1W", "%2B"),
        (" 2025-05-01", "neither"),
        ("1746057600", "neither"),
        ("\uff12\uff10\uff12\uff15-05-01", "neither"),
        ("2025-05-01\n", "neither"),
        ("2025-05-01T00:00:00Z\x00", "neither"),
        ("P999999W", "calendar"),
    ],
)
def test_invalid_moments_are_refused_with_the_reason(text: str, tells: str) -> None:
    """Each kind of mistake has its own text."""
    with pytest.raises(ValueError, match=tells):
        parse_moment(text)


def test_a_range_that_ends_with_a_date_includes_the_whole_day() -> None:
    """Its last second ends it; any other moment is read like the start of a range."""
    assert parse_moment("2025-05-01") == At(epoch_s=1_746_057_600)
    assert parse_until("2025-05-01") == At(epoch_s=1_746_057_600 + 86_399)
    for text in ("2025-05-01T00:00:00Z", "2025-05-01T00:00:00+02:00", "-P1D", "now"):
        assert parse_until(text) == parse_moment(text)
    with pytest.raises(ValueError, match="no such day"):
        parse_until("2025-02-30")


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail with anything but ValueError."""
    try:
        moment = parse_moment(text)
    except ValueError:
        return
    assert parse_moment(str(moment)) == moment


@given(st.integers(-(10**9), 10**9))
def test_a_duration_is_written_as_it_is_read(offset_s: int) -> None:
    """The text of a relative moment, which is part of a query's identity, represents it exactly."""
    moment = FromNow(offset_s=offset_s)
    assert parse_moment(str(moment)) == moment


def test_relative_moments_are_aligned() -> None:
    """Requests within the same minute send the same range upstream."""
    query = Query(app="shop", since=FromNow(offset_s=-60), until=At(epoch_s=5_000))
    assert query.range_at(1_019.9, align_s=60) == query.range_at(960, align_s=60) == Range(since_s=900, until_s=5_000)


def test_equal_queries_share_an_identity_and_others_do_not() -> None:
    """A keyword that looks like another query's text does not make the two equal."""
    since, until = FromNow(offset_s=-60), FromNow(offset_s=60)
    queries = [
        Query(app="shop", since=since, until=until),
        Query(app="shop", since=until, until=since),
        Query(app="shop", since=since, until=until, sort=Sort.CREATED),
        Query(app="shop", since=since, until=until, keyword="created_at"),
    ]
    assert len({query.identity for query in queries}) == len(queries)


@given(st.integers(0, 10_000), st.integers(1, 100), st.integers(100, 300))
def test_a_slice_lies_within_its_blocks(offset: int, limit: int, block_size: int) -> None:
    """One block or two hold any slice that is no longer than a block."""
    blocks = Slice(offset=offset, limit=limit).blocks(block_size)
    assert blocks.start * block_size <= offset
    assert offset + limit <= blocks.stop * block_size
    assert 1 <= len(blocks) <= 2
