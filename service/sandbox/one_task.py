"""One task by its id: validate a call's body as the upstream's page says, and write the answer."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from service.sandbox.listing import bad_parameters, read_fields
from service.sandbox.refusals import SandboxRefusal
from service.sandbox.tasks import TaskInfo


class GetBody(msgspec.Struct, frozen=True, kw_only=True):
    """A call's body with only its types checked. Unknown fields are ignored."""

    sdkappid: int = msgspec.field(name="Sdkappid")
    task_id: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = msgspec.field(name="TaskID")


class TaskFound(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A successful answer; without a task it lacks `TaskInfo`."""

    action_status: str = "OK"
    error_info: str = ""
    error_code: int = 0
    task_info: TaskInfo | UnsetType = UNSET


def read_get_body(raw: bytes, *, sdkappid: int) -> int | SandboxRefusal:
    """Validate a body; return the task's id."""
    body = read_fields(raw, GetBody)
    if isinstance(body, SandboxRefusal):
        return body
    if body.sdkappid != sdkappid:
        return bad_parameters("Sdkappid does not match the sdkappid in the URL")
    return body.task_id


def task_answer(info: TaskInfo | None, *, unknown_code: int | None) -> TaskFound | SandboxRefusal:
    """Return the answer with a task; without one the refusal with `unknown_code`, or success if that is None."""
    if info is not None:
        return TaskFound(task_info=info)
    return TaskFound() if unknown_code is None else SandboxRefusal(code=unknown_code, text="the task does not exist")
