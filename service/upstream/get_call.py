"""`get_sched_task` on the wire: the body of a call, and the content of an answer."""

from collections import Counter
from collections.abc import Collection

import msgspec
from msgspec import Raw, field

from service.model.tasks import Task
from service.upstream.apps import UpstreamApp
from service.upstream.records import Oddity, WireTask, task_of, wire_task
from service.upstream.wire import MalformedAnswer, UpstreamRefusal, check_sdkappid, read_answer

NULL = Raw(b"null")


class TaskAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one call: the task, or None if there is none with that id. `odd` counts deviations."""

    task: Task | None
    odd: tuple[tuple[str, int], ...] = ()


class _GetRequest(msgspec.Struct, frozen=True, kw_only=True):
    sdkappid: int = field(name="Sdkappid")
    task_id: int = field(name="TaskID")


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    task: WireTask | None = field(name="TaskInfo", default=None)


class _OddFound(msgspec.Struct, frozen=True, kw_only=True):
    task: Raw = field(name="TaskInfo", default=NULL)


_found = msgspec.json.Decoder(_Found)
_odd_found = msgspec.json.Decoder(_OddFound)


def get_body(app: UpstreamApp, task_id: int) -> bytes:
    """Return the JSON body of a call."""
    return msgspec.json.encode(_GetRequest(sdkappid=app.sdkappid, task_id=task_id))


def read_task_answer(
    body: bytes, *, sdkappid: int, task_id: int, unknown_codes: Collection[int]
) -> TaskAnswer | UpstreamRefusal:
    """Read an answer to an app's call for one task. Raise MalformedAnswer.

    There is no such task if the upstream says so by one of `unknown_codes`, or by success without a task: `TaskInfo`
    absent, null, empty, or with a TaskID of 0.
    """

    def read_content(content: bytes, odd: Counter[Oddity]) -> TaskAnswer:
        record = _record(content, odd)
        if record is None or (record.task_id == 0 and task_id != 0):
            return TaskAnswer(task=None, odd=tuple(odd.items()))
        if record.task_id != task_id:
            raise MalformedAnswer("the answer holds another task")
        check_sdkappid((record,), sdkappid=sdkappid)
        task = task_of(record, odd)
        return TaskAnswer(task=task, odd=tuple(odd.items()))

    answer = read_answer(body, read_content)
    if isinstance(answer, UpstreamRefusal) and answer.code in unknown_codes:
        return TaskAnswer(task=None)
    return answer


def _record(content: bytes, odd: Counter[Oddity]) -> WireTask | None:
    """Return the task's readable fields; None if there is no task."""
    try:
        return _found.decode(content).task
    except msgspec.ValidationError:
        raw = _odd_found.decode(content).task
    if not msgspec.json.decode(raw, type=dict[str, Raw]):
        return None
    record = wire_task(raw, odd)
    if record is None:
        raise MalformedAnswer("TaskInfo lacks a readable TaskID")
    return record
