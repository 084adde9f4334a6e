"""What changes from one version of a list to the next."""

from hypothesis import given
from hypothesis import strategies as st

from service.model.queries import Range
from service.model.streams import TaskFilter
from service.watch.changes import TaskAdded, TaskChanged, TaskRemoved, task_changes, with_changes
from service.watch.versions import ListVersion, decode_version, encode_version, watched_task
from tests.unit.watch.lists import QUERY, RANGE, record

ALL = TaskFilter()
_TASKS = st.dictionaries(
    st.integers(1, 12),
    st.tuples(
        st.sampled_from(("pending", "dispatching", "dispatched")),
        st.sampled_from(("all", "tag", "user")),
        st.sampled_from(("a", "b", "ü\n")),
        st.integers(RANGE.since_s - 10, RANGE.until_s + 10),
    ),
)
_ONLY = st.builds(
    TaskFilter,
    statuses=st.sampled_from(((), ("pending",), ("dispatched", "pending"))),
    types=st.sampled_from(((), ("all",), ("tag",))),
)


def version(*records: bytes, range_: Range = RANGE) -> ListVersion:
    """A version of these records."""
    return ListVersion((watched_task(each, sort=QUERY.sort, known={}) for each in records), range_=range_)


def _of(tasks: dict[int, tuple[str, str, str, int]]) -> ListVersion:
    return version(*(record(id_, status=s, type_=t, title=title, at_s=at) for id_, (s, t, title, at) in tasks.items()))


@given(_TASKS, _TASKS, _ONLY, st.integers(0, 24))
def test_replaying_changes_gives_the_new_list(old: dict, new: dict, only: TaskFilter, done: int) -> None:
    """Applying all changes yields the new list; from any point in between, the remaining changes do, too."""
    before, after = _of(old), _of(new)
    wanted = {id_: task.sums for id_, task in after.tasks.items() if only.takes(task.labels)}
    held = {id_: task for id_, task in before.tasks.items() if only.takes(task.labels)}
    steps = task_changes(held, after, only)
    assert {id_: task.sums for id_, task in with_changes(held, steps).items()} == wanted
    begun = with_changes(held, steps[:done])
    rest = with_changes(begun, task_changes(begun, after, only))
    assert {id_: task.sums for id_, task in rest.items()} == wanted


@given(_TASKS, _TASKS, _ONLY)
def test_a_change_is_sent_once(old: dict, new: dict, only: TaskFilter) -> None:
    """No task is named twice, and none that has not changed is named at all."""
    before, after = _of(old), _of(new)
    steps = task_changes(before.tasks, after, only)
    ids = [step.id if isinstance(step, TaskRemoved) else step.task.labels.id for step in steps]
    assert len(ids) == len(set(ids))
    same = {id_ for id_ in before.tasks.keys() & after.tasks.keys() if before.tasks[id_].sums == after.tasks[id_].sums}
    assert same.isdisjoint(ids)


@given(_TASKS, _TASKS, _ONLY)
def test_a_version_restored_from_redis_yields_the_same_changes(old: dict, new: dict, only: TaskFilter) -> None:
    """The part of a version that Redis keeps is enough to continue from it."""
    before, after = _of(old), _of(new)
    restored = decode_version(encode_version(before))
    assert restored is not None
    assert restored.name == before.name
    assert task_changes(restored.tasks, after, only) == task_changes(before.tasks, after, only)


@given(st.binary(max_size=200) | st.tuples(_TASKS, st.integers(0, 400), st.integers(0, 255)))
def test_a_damaged_version_never_raises(damage: bytes | tuple) -> None:
    """Damaged bytes are read as None or as some version, cut off ones as None; nothing is raised."""
    if isinstance(damage, bytes):
        decode_version(damage)
        return
    tasks, at, byte = damage
    value = bytearray(encode_version(_of(tasks)))
    value[at % len(value)] = byte
    decode_version(bytes(value))
    assert decode_version(bytes(value[: at % len(value)])) is None


def test_changed_names_the_fields_that_differ() -> None:
    """`changed` lists exactly the fields that differ."""
    (step,) = task_changes(
        version(record(1)).tasks, version(record(1, title="new", at_s=1_600_000, status="dispatched")), ALL
    )
    assert isinstance(step, TaskChanged)
    assert step.fields == ("status", "title", "scheduled_at")


def test_a_task_that_leaves_the_filter_is_removed_with_its_new_status() -> None:
    """A task that no longer matches the filter is removed, with its new status."""
    (step,) = task_changes(
        version(record(1)).tasks, version(record(1, status="dispatching")), TaskFilter(statuses=("pending",))
    )
    assert step == TaskRemoved(id=1, status="dispatching", reason="filter")


def test_a_task_that_enters_the_filter_is_added() -> None:
    """A task that begins to match the filter is added, even if it existed before."""
    (step,) = task_changes(
        version(record(1)).tasks, version(record(1, status="dispatched")), TaskFilter(statuses=("dispatched",))
    )
    assert isinstance(step, TaskAdded)


def test_the_reason_of_a_removal_is_range_or_deleted() -> None:
    """The reason distinguishes a range that has moved on from a task that was deleted."""
    before = version(record(1, at_s=1_100_000), record(2, at_s=1_500_000))
    after = version(range_=Range(since_s=1_200_000, until_s=2_200_000))
    assert task_changes(before.tasks, after, ALL) == (
        TaskRemoved(id=1, status="pending", reason="range"),
        TaskRemoved(id=2, status="pending", reason="deleted"),
    )


def test_versions_of_equal_tasks_have_equal_names() -> None:
    """Equal tasks yield the same name on any replica, in any order; any difference yields another."""
    assert version(record(1), record(2)).name == version(record(2), record(1)).name
    assert version(record(1)).name != version(record(1, title="u")).name
