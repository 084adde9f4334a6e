"""The wire format of `get_sched_task`, with the sample of the upstream's page."""

import json
from typing import Any

import msgspec
import pytest

from service.model.tasks import Task
from service.upstream.apps import UpstreamApp
from service.upstream.get_call import TaskAnswer, get_body, read_task_answer
from service.upstream.wire import MalformedAnswer, UpstreamRefusal

APP = UpstreamApp(name="shop", sdkappid=88888888, admin="admin", hosts=("https://upstream.invalid",))
TASK_ID = 1234567890


def answer(**fields: object) -> dict[str, Any]:
    """Return the sample with some of the task's fields changed; a field that is `...` is absent."""
    task = {
        "TaskID": TASK_ID,
        "Sdkappid": 88888888,
        "CreateAt": "2025-05-20 08:30:00",
        "Type": "All",
        "SchedAt": "2025-06-01 10:00:00",
        "Content": {"From_Account": 12345, "MsgRandom": 123456},
        "Title": "Push Title",
        "Desc": "Push Content Description",
        "Status": "pending",
        "DispatchSuccess": 0,
        "DispatchErr": "",
        "PushTaskID": "",
        **fields,
    }
    info = {name: value for name, value in task.items() if value is not ...}
    return {"ActionStatus": "OK", "ErrorInfo": "", "ErrorCode": 0, "TaskInfo": info}


def read_bytes(body: bytes, *, task_id: int = TASK_ID) -> TaskAnswer | UpstreamRefusal:
    return read_task_answer(body, sdkappid=88888888, task_id=task_id, unknown_codes=(90106, 90104))


def read(decoded: object, *, task_id: int = TASK_ID) -> TaskAnswer:
    result = read_bytes(json.dumps(decoded).encode(), task_id=task_id)
    assert isinstance(result, TaskAnswer)
    return result


def task_in(decoded: object) -> Task:
    task = read(decoded).task
    assert task is not None
    return task


def test_a_request_matches_the_documented_sample() -> None:
    """A body has the two fields of the upstream's page."""
    assert json.loads(get_body(APP, TASK_ID)) == {"Sdkappid": 88888888, "TaskID": TASK_ID}


def test_the_documented_answer_is_read() -> None:
    """The page's sample is the task as callers see it, its content unchanged."""
    assert json.loads(msgspec.json.encode(task_in(answer()))) == {
        "id": TASK_ID,
        "type": "all",
        "status": "pending",
        "title": "Push Title",
        "description": "Push Content Description",
        "created_at": "2025-05-20T08:30:00Z",
        "scheduled_at": "2025-06-01T10:00:00Z",
        "dispatched": False,
        "dispatch_error": None,
        "push_task_id": None,
        "content": {"From_Account": 12345, "MsgRandom": 123456},
    }


@pytest.mark.parametrize(
    ("fields", "attribute", "expected", "odd"),
    [
        ({"TaskID": str(TASK_ID)}, "id", TASK_ID, ()),
        ({"Sdkappid": ...}, "id", TASK_ID, ()),
        ({"Title": 7}, "title", None, (("value", 1),)),
        ({"SchedAt": "soon"}, "scheduled_at", None, (("time", 1),)),
        ({"Status": ...}, "status", None, ()),
        ({"Content": ...}, "content", msgspec.Raw(b"null"), ()),
    ],
)
def test_unreadable_fields_are_null_and_counted(
    fields: dict[str, object], attribute: str, expected: object, odd: tuple[object, ...]
) -> None:
    """What can be read without guessing is kept, the rest is null and counted, as in lists."""
    result = read(answer(**fields))
    assert getattr(result.task, attribute) == expected
    assert result.odd == odd


@pytest.mark.parametrize(
    "info", [..., None, {}, {"TaskID": 0, "Sdkappid": 0, "Title": ""}, {"TaskID": "0", "Title": 7}], ids=repr
)
def test_success_without_a_task(info: object) -> None:
    """Success without a task means that there is none: TaskInfo absent, null, empty, or with a TaskID of 0."""
    decoded = answer()
    decoded["TaskInfo"] = info
    if info is ...:
        del decoded["TaskInfo"]
    assert read(decoded).task is None


@pytest.mark.parametrize("code", [90106, 90104])
def test_codes_of_unknown_tasks(code: int) -> None:
    """The codes that are set for it mean that there is no such task, whatever else the answer holds."""
    assert read({"ActionStatus": "FAIL", "ErrorInfo": "no task", "ErrorCode": code, "TaskID": 0}).task is None


@pytest.mark.parametrize("code", [90105, 70009, 60018, 12345])
def test_any_other_code_is_a_refusal(code: int) -> None:
    """Any other code is a refusal with the upstream's text."""
    body = json.dumps({"ActionStatus": "FAIL", "ErrorInfo": "their words", "ErrorCode": code})
    assert read_bytes(body.encode()) == UpstreamRefusal(code=code, text="their words")


@pytest.mark.parametrize(
    ("decoded", "named"),
    [
        (answer(TaskID=7), "another task"),
        (answer(TaskID=...), "TaskID"),
        (answer(TaskID=1.5), "TaskID"),
        (answer(Sdkappid=88888887), "another app"),
        (answer(Sdkappid="88888887"), "another app"),
        ({**answer(), "TaskInfo": []}, "another type"),
        ({**answer(), "TaskInfo": "x"}, "another type"),
        ({**answer(), "ActionStatus": "FAIL"}, "ActionStatus"),
        ([], "another type"),
        ({}, "ErrorCode"),
    ],
)
def test_malformed_answers_are_errors(decoded: object, named: str) -> None:
    """Another task, a task of another app, and anything that is not a task are errors that say so."""
    with pytest.raises(MalformedAnswer, match=named):
        read(decoded)


def test_a_task_with_id_zero_is_found() -> None:
    """The task with id 0 is found if it is requested."""
    assert read(answer(TaskID=0), task_id=0).task is not None


def test_half_a_surrogate_pair_is_replaced() -> None:
    """Half of a surrogate pair becomes U+FFFD, as in lists."""
    body = json.dumps(answer()).encode().replace(b"Push Title", rb"a \ud800")
    result = read_bytes(body)
    assert isinstance(result, TaskAnswer)
    assert result.task is not None
    assert (result.task.title, result.odd) == ("a \ufffd", (("text", 1),))
