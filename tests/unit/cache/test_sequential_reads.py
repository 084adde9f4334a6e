"""Which block is prefetched for which caller."""

from service.cache.sequential_reads import SequentialReads
from service.model.queries import FromNow, Query, Slice

QUERY = Query(app="shop", since=FromNow(offset_s=-1), until=FromNow(offset_s=1))
OTHER = Query(app="shop", since=FromNow(offset_s=-2), until=FromNow(offset_s=1))


def _walk(
    sequential_reads: SequentialReads, *slices: tuple[int, int], caller: str = "a", total: int = 1000
) -> list[int | None]:
    return [
        sequential_reads.step(caller, QUERY, Slice(offset=offset, limit=limit), total=total) for offset, limit in slices
    ]


def test_sequential_pages_name_the_next_block() -> None:
    """One page before a block ends, and at its end, the next block is named; never one beyond the total."""
    sequential_reads = SequentialReads(block_size=100)
    offsets = [(offset, 20) for offset in range(0, 240, 20)]
    assert _walk(sequential_reads, *offsets, total=240) == [None, None, None, 1, 1, None, None, None, 2, 2, None, None]


def test_whole_blocks_are_sequential_from_the_second_on() -> None:
    """A caller that takes whole blocks is recognised from the second on."""
    assert _walk(SequentialReads(block_size=100), (0, 100), (100, 100), (200, 100), total=400) == [None, 2, 3]


def test_jumps_are_not_sequential() -> None:
    """Pages out of order, backwards or repeated are not sequential reads."""
    assert _walk(SequentialReads(block_size=100), (80, 20), (40, 20), (80, 20), (80, 20), (180, 20)) == [None] * 5


def test_a_slice_over_two_blocks_requests_the_next_one() -> None:
    """A slice that has entered a block requests the one after it, not its own."""
    assert _walk(SequentialReads(block_size=100), (50, 60), (110, 60)) == [None, 2]


def test_callers_and_queries_have_separate_sequences() -> None:
    """Two callers' pages, or pages of two queries, are not one sequence."""
    sequential_reads = SequentialReads(block_size=100)
    assert _walk(sequential_reads, (60, 20)) == [None]
    assert _walk(sequential_reads, (80, 20), caller="b") == [None]
    assert sequential_reads.step("a", OTHER, Slice(offset=80, limit=20), total=1000) is None
    assert _walk(sequential_reads, (80, 20)) == [1]


def test_sequences_are_bounded() -> None:
    """The sequence idle for longest is dropped first; one that has reached the end is dropped too."""
    sequential_reads = SequentialReads(block_size=100, most=3)
    for number in range(10):
        _walk(sequential_reads, (60, 20), caller=str(number))
    assert len(sequential_reads) == 3
    assert _walk(sequential_reads, (80, 20), caller="9") == [1]
    assert _walk(sequential_reads, (80, 20), caller="0") == [None]
    _walk(sequential_reads, (980, 20), caller="9")
    assert len(sequential_reads) == 2
