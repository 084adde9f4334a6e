"""How a change of the list is detected while it is read."""

from collections.abc import Sequence

import msgspec

from service.model.blocks import Block
from service.model.queries import Range
from service.model.streams import SeenTasks, TaskFilter, TaskLabels, task_labels_of


def read(*blocks: Sequence[int], totals: Sequence[int] = (), short: Sequence[int] = ()) -> SeenTasks:
    """Read all blocks, with a total of six by default."""
    seen = SeenTasks(total=totals[0] if totals else 6)
    for number, ids in enumerate(blocks):
        seen = seen.after(ids, total=totals[number] if totals else 6, is_short=number in short)
    return seen


def test_an_unchanged_list_shows_no_change() -> None:
    """Blocks of other ids with the same total show no change."""
    assert not read((1, 2), (3, 4), (5, 6)).changed
    assert not read(()).changed


def test_each_kind_of_change_is_detected() -> None:
    """A new total, an id seen in one of the last two blocks or twice in one, and a short block each show a change."""
    assert read((1, 2), (3, 4), totals=(6, 7)).changed
    assert read((1, 2), (2, 3)).changed
    assert read((1, 2), (3, 4), (1, 6)).changed
    assert read((1, 1)).changed
    assert read((1, 2), (3,), short=(1,)).changed


def test_a_change_is_reported_at_the_end() -> None:
    """A change seen once is reported at the end, whatever follows; the newest total is reported."""
    seen = read((1, 2), (2, 3), (4, 5), (6, 7), totals=(6, 6, 6, 9))
    assert seen.changed
    assert seen.total == 9


def test_remembered_ids_are_bounded() -> None:
    """Only the ids of two blocks are held, however long the list; so an id that comes again later shows nothing."""
    seen = read((1, 2), (3, 4), (5, 6), (1, 2))
    assert not seen.changed
    assert sum(len(each) for each in seen.ids) == 4


def test_a_task_matches_if_all_criteria_do() -> None:
    """A task matches if all given criteria agree with it."""
    labels = TaskLabels(id=1, type="tag", status="pending")
    assert TaskFilter().takes(labels)
    assert TaskFilter(statuses=("dispatched", "pending"), types=("tag",)).takes(labels)
    assert not TaskFilter(statuses=("pending",), types=("all",)).takes(labels)
    assert not TaskFilter(statuses=("dispatched",)).takes(labels)


def test_labels_are_read_whatever_else_a_task_holds() -> None:
    """Labels of the same names within the content are not taken for the task's."""
    record = b'{"id":7,"type":"all","status":"pending","content":{"id":8,"type":"x","status":[1,{"status":"y"}]}}'
    assert task_labels_of(record) == TaskLabels(id=7, type="all", status="pending")


def test_the_records_of_a_block_make_up_its_body() -> None:
    """The records that a block is cut into make up its body again, for any part of it."""
    records = tuple(msgspec.json.encode({"id": number, "t": "," * number}) for number in range(5))
    ends, position = [], -1
    for record in records:
        position += 1 + len(record)
        ends.append(position)
    block = Block(
        fetched_at_ms=0,
        range=Range(since_s=0, until_s=1),
        total=5,
        settled=False,
        ends=tuple(ends),
        body=b",".join(records),
    )
    for start in range(7):
        for stop in range(7):
            assert block.records(start, stop) == records[start:stop]
            assert b",".join(block.records(start, stop)) == block.cut(start, stop)
