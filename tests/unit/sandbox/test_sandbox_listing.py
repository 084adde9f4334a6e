"""The sandbox's tasks and list: what is refused, what is found, in which order, and how it moves with the clock."""

import json
from collections import Counter
from itertools import islice

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.sandbox.listing import ListPage, ListRequest, SandboxTasks, read_body
from service.sandbox.refusals import SandboxRefusal
from service.sandbox.tasks import DAY_S, SandboxTask, generate_tasks, info_at, moment

START_S = 1_750_000_000
APP = 1400000001
GOOD = {
    "Sdkappid": APP,
    "Offset": 0,
    "Want": 20,
    "OrderBy": "schedat",
    "Asc": False,
    "BeginTime": "2025-05-01 00:00:00",
    "EndTime": "2025-06-01 00:00:00",
    "Keyword": "Push Title",
}
MISSING = "left out"


def _read(**changed: object) -> ListRequest | SandboxRefusal:
    body = {name: value for name, value in (GOOD | changed).items() if value is not MISSING}
    return read_body(json.dumps(body).encode(), sdkappid=APP, range_max_days=60, want_max=500)


def test_the_pages_own_example_is_read() -> None:
    """The page's sample request is accepted and means what it says."""
    assert _read() == ListRequest(
        field="scheduled",
        ascending=False,
        begin_s=1746057600,
        end_s=1748736000,
        offset=0,
        want=20,
        keyword="Push Title",
    )


@pytest.mark.parametrize(
    ("order_by", "field"),
    [("createat", "created"), ("createAt", "created"), ("schedat", "scheduled"), ("schedAt", "scheduled")],
)
def test_both_spellings_of_order_by_are_accepted(order_by: str, field: str) -> None:
    """Both pages' spellings of OrderBy are accepted."""
    wanted = _read(OrderBy=order_by)
    assert isinstance(wanted, ListRequest)
    assert wanted.field == field


@pytest.mark.parametrize(
    "changed",
    [
        *({name: MISSING} for name in GOOD if name != "Keyword"),
        {"Sdkappid": 1400000002},
        {"Sdkappid": str(APP)},
        {"Offset": -1},
        {"Offset": 1.5},
        {"Offset": True},
        {"Want": 0},
        {"Want": -1},
        {"Want": 501},
        {"OrderBy": "title"},
        {"OrderBy": "CREATEAT"},
        {"Asc": "true"},
        {"Asc": 1},
        {"BeginTime": ""},
        {"BeginTime": "2025-05-01T00:00:00"},
        {"BeginTime": "2025-05-01"},
        {"BeginTime": "2025-5-1 0:0:0"},
        {"EndTime": "2025-02-30 00:00:00"},
        {"EndTime": "2025-06-01 24:00:00"},
        {"EndTime": "2025-06-01 00:00:00 "},
        {"BeginTime": "2025-06-01 00:00:01"},
        {"EndTime": "2025-06-30 00:00:01"},
        {"Keyword": None},
        {"Keyword": 7},
    ],
    ids=str,
)
def test_invalid_parameters_are_refused_with_90104(changed: dict[str, object]) -> None:
    """Each parameter that the page calls invalid is refused with 90104 and a text that names it."""
    refusal = _read(**changed)
    assert isinstance(refusal, SandboxRefusal)
    assert refusal.code == 90104
    name = next(iter(changed))
    assert name in refusal.text or "time range" in refusal.text


def test_bounds_are_included() -> None:
    """A range of the longest length, of no length, and the largest Want are accepted."""
    assert isinstance(_read(EndTime="2025-06-30 00:00:00"), ListRequest)
    assert isinstance(_read(EndTime=GOOD["BeginTime"]), ListRequest)
    assert isinstance(_read(Want=500, Unknown=1, Keyword=MISSING), ListRequest)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff", b"null", b'"x"'])
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    """A body that is no JSON object is refused with 60003."""
    refusal = read_body(raw, sdkappid=APP, range_max_days=60, want_max=None)
    assert isinstance(refusal, SandboxRefusal)
    assert refusal.code == 60003


def test_the_same_seed_makes_the_same_tasks() -> None:
    """Tasks depend on seed and app alone, and a longer list begins with the shorter one."""
    one = list(islice(generate_tasks(seed=7, sdkappid=APP, start_s=START_S), 300))
    assert list(islice(generate_tasks(seed=7, sdkappid=APP, start_s=START_S), 200)) == one[:200]
    assert list(islice(generate_tasks(seed=8, sdkappid=APP, start_s=START_S), 300)) != one
    assert list(islice(generate_tasks(seed=7, sdkappid=APP + 1, start_s=START_S), 300)) != one


def test_seeded_tasks_are_various() -> None:
    """Seeded tasks spread over 60 days each way, in all types, some failing, with both shapes of From_Account."""
    tasks = list(islice(generate_tasks(seed=1, sdkappid=APP, start_s=START_S), 2000))
    offsets = [task.scheduled_s - START_S for task in tasks]
    assert -60 * DAY_S <= min(offsets) < -55 * DAY_S
    assert 55 * DAY_S < max(offsets) < 60 * DAY_S
    assert all(task.created_s < min(task.scheduled_s, START_S) for task in tasks)
    assert set(Counter(task.type for task in tasks)) == {"All", "Tag", "User"}
    assert 20 < sum(bool(task.error) for task in tasks) < 200
    accounts = Counter(type(json.loads(bytes(task.content))["From_Account"]) for task in tasks)
    assert set(accounts) == {str, int}
    assert len({task.id for task in tasks}) == 2000


@pytest.mark.parametrize(
    ("after_s", "error", "status", "success", "dispatch_error"),
    [
        (-0.001, "", "pending", 0, ""),
        (0, "", "dispatching", 0, ""),
        (4.999, "no token", "dispatching", 0, ""),
        (5, "", "dispatched", 1, ""),
        (5, "no token", "dispatched", 0, "no token"),
    ],
)
def test_statuses_follow_the_clock(after_s: float, error: str, status: str, success: int, dispatch_error: str) -> None:
    """A task is pending before its time, dispatching for a while from then on, then dispatched, well or not."""
    task = SandboxTask(id=1, created_s=1, scheduled_s=START_S, title="t", description="d", dispatch_s=5, error=error)
    info = info_at(task, sdkappid=APP, now_s=START_S + after_s)
    assert (info.status, info.dispatch_success, info.dispatch_err) == (status, success, dispatch_error)
    assert bool(info.push_task_id) == bool(success)


def test_a_task_is_written_as_on_the_page() -> None:
    """A listed task has exactly the fields of the page's sample, and content passes untouched."""
    task = SandboxTask(
        id=9,
        created_s=START_S,
        scheduled_s=START_S + 1,
        title="t",
        description="d",
        content=msgspec.Raw(b'{"a": [1 ]}'),
    )
    encoded = msgspec.json.encode(info_at(task, sdkappid=APP, now_s=START_S))
    assert b'"Content":{"a": [1 ]}' in encoded
    assert json.loads(encoded) == {
        "TaskID": 9,
        "Sdkappid": APP,
        "CreateAt": moment(START_S),
        "Type": "All",
        "SchedAt": moment(START_S + 1),
        "Content": {"a": [1]},
        "Title": "t",
        "Desc": "d",
        "Status": "pending",
        "DispatchSuccess": 0,
        "DispatchErr": "",
        "PushTaskID": "",
    }


TASKS = st.lists(
    st.builds(
        SandboxTask,
        id=st.integers(1, 1000),
        created_s=st.integers(0, 20),
        scheduled_s=st.integers(0, 20),
        title=st.sampled_from(["Sale", "news", "ÄRGER", ""]),
        description=st.sampled_from(["on SALE", "none", "x"]),
    ),
    max_size=40,
    unique_by=lambda task: task.id,
)


@given(
    tasks=TASKS,
    wanted=st.builds(
        ListRequest,
        field=st.sampled_from(["created", "scheduled"]),
        ascending=st.booleans(),
        begin_s=st.integers(0, 20),
        end_s=st.integers(0, 20),
        offset=st.integers(0, 45),
        want=st.integers(1, 45),
        keyword=st.sampled_from(["", "sale", "Sale", "ärger", "zzz"]),
    ),
)
def test_pages_are_what_a_plain_reading_gives(tasks: list[SandboxTask], wanted: ListRequest) -> None:
    """A page holds what plain filtering, sorting with ties by id, and cutting give; Total is before the cut."""
    listed = SandboxTasks(iter(()), total=0)
    listed.add(tasks)

    def field(task: SandboxTask) -> int:
        return task.created_s if wanted.field == "created" else task.scheduled_s

    matching = [
        task
        for task in tasks
        if wanted.begin_s <= field(task) <= wanted.end_s
        and any(wanted.keyword.casefold() in text.casefold() for text in (task.title, task.description))
    ]
    matching.sort(key=lambda task: (field(task) if wanted.ascending else -field(task), task.id))
    page = listed.page(wanted, sdkappid=APP, now_s=0)
    assert page.total == len(matching)
    cut = matching[wanted.offset : wanted.offset + wanted.want]
    assert [info.task_id for info in page.tasks] == [task.id for task in cut]


@pytest.mark.parametrize("ascending", [True, False])
def test_ties_keep_one_order(ascending: bool) -> None:
    """Tasks of the same second are in the order of their ids, whichever way the list is sorted."""
    listed = SandboxTasks(iter(()), total=0)
    listed.add(SandboxTask(id=number, created_s=1, scheduled_s=2, title="t", description="d") for number in (3, 1, 2))
    wanted = ListRequest(field="scheduled", ascending=ascending, begin_s=0, end_s=9, offset=0, want=9, keyword="")
    assert [info.task_id for info in listed.page(wanted, sdkappid=APP, now_s=0).tasks] == [1, 2, 3]


def _ids(tasks: SandboxTasks) -> list[int]:
    everything = ListRequest(field="created", ascending=True, begin_s=0, end_s=2**40, offset=0, want=10**6, keyword="")
    page: ListPage = tasks.page(everything, sdkappid=APP, now_s=START_S)
    return sorted(info.task_id for info in page.tasks)


def test_lists_change_on_demand() -> None:
    """After add, remove and resize the list holds just what they say."""
    tasks = SandboxTasks(generate_tasks(seed=1, sdkappid=APP, start_s=START_S), total=10)
    first = _ids(tasks)
    tasks.add([SandboxTask(id=5, created_s=1, scheduled_s=2, title="t", description="d")])
    assert _ids(tasks) == [5, *first]
    assert tasks.remove([5, first[0], 999]) == 2
    assert _ids(tasks) == first[1:]
    tasks.resize(3)
    assert _ids(tasks) == first[1:4]
    tasks.resize(30)
    assert len(tasks) == len(_ids(tasks)) == 30
