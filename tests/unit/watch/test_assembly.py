"""A version from its blocks, fetched one after the other while the list moves."""

from msgspec.structs import replace

from service.model.pages import Chunk, Source
from service.watch.assembly import AssembledList, assemble
from tests.unit.watch.lists import QUERY, RANGE, record


def block(*ids: int, at_ms: int = 1, title: str = "t") -> Chunk:
    """A block of tasks with these ids."""
    return Chunk(
        records=tuple(record(id_, title=title) for id_ in ids),
        total=4,
        following=None,
        is_short=False,
        fetched_at_ms=at_ms,
        range=RANGE,
        lifetime_s=15.0,
        source=Source.FETCHED,
    )


def put(*chunks: Chunk, last: AssembledList | None = None, is_new: bool = True) -> AssembledList:
    """One pass."""
    return assemble(chunks, query=QUERY, last=last, is_new=is_new)


def test_a_task_that_moves_between_fetches_is_not_removed() -> None:
    """A task that moved from a block not yet read to one read before is missed once, and kept."""
    first = put(block(1, 2), block(3, 4))
    second = put(block(1, 2, at_ms=2), block(4, 5, at_ms=3), last=first)
    assert set(second.version.tasks) == {1, 2, 3, 4, 5}
    third = put(block(1, 2, at_ms=4), block(3, 4, at_ms=5), last=second)
    assert set(third.version.tasks) == {1, 2, 3, 4, 5}, "5 is missed for the first time now"
    assert third.missing == {5}


def test_a_task_missed_twice_is_removed() -> None:
    """The second pass must have newer blocks: the same blocks again prove nothing."""
    first = put(block(1, 2), block(3, 4))
    second = put(block(1, 2, at_ms=2), block(4, at_ms=3), last=first)
    again = put(block(1, 2, at_ms=2), block(4, at_ms=3), last=second, is_new=False)
    assert 3 in again.version.tasks
    third = put(block(1, 2, at_ms=4), block(4, at_ms=5), last=again)
    assert set(third.version.tasks) == {1, 2, 4}
    assert third.missing == frozenset()


def test_a_task_missed_in_a_single_block_is_removed_at_once() -> None:
    """A list of one block was fetched at one moment, so a missing task is removed at once."""
    assert set(put(block(1), last=put(block(1, 2))).version.tasks) == {1}


def test_of_two_records_of_a_task_the_newer_counts() -> None:
    """A task in two blocks moved between their fetches; the newer record counts."""
    now = put(block(1, 2, at_ms=5, title="new"), block(2, 3, at_ms=4, title="old"))
    assert b'"new"' in now.version.tasks[2].record
    assert len(now.version.tasks) == 3


def test_unchanged_tasks_are_the_same_objects() -> None:
    """Versions share unchanged tasks, so that comparing them is cheap."""
    first = put(block(1, 2))
    second = put(replace(block(1, 2), fetched_at_ms=9), last=first)
    assert all(second.version.tasks[id_] is first.version.tasks[id_] for id_ in (1, 2))
