"""One task in the upstream's format, read leniently: fields that can be read without guessing are kept, the rest is
null."""

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw, field

from service.model.tasks import Task

INT64 = range(-(2**63), 2**63)

T = TypeVar("T")


class Oddity(StrEnum):
    """A deviation of an answer from the upstream's page. A small closed set, suitable for a metric's label."""

    ID = "id"
    """A record without a readable id, left out."""
    TIME = "time"
    """An invalid time: null."""
    TEXT = "text"
    """Text that is not Unicode: each invalid character becomes U+FFFD."""
    VALUE = "value"
    """A field of another type than promised."""
    TOTAL = "total"
    """A `Total` below the number of tasks in the answer."""
    SURPLUS = "surplus"
    """More tasks than requested; those belong to the next block and are dropped."""


class WireTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task's fields under the upstream's names. All but the id may be absent or null."""

    task_id: Annotated[int, Meta(ge=INT64[0], le=INT64[-1])] = field(name="TaskID")
    sdkappid: int | None = field(name="Sdkappid", default=None)
    type: str | None = field(name="Type", default=None)
    status: str | None = field(name="Status", default=None)
    title: str | None = field(name="Title", default=None)
    desc: str | None = field(name="Desc", default=None)
    create_at: str | None = field(name="CreateAt", default=None)
    sched_at: str | None = field(name="SchedAt", default=None)
    dispatch_success: bool | int | None = field(name="DispatchSuccess", default=None)
    dispatch_err: str | None = field(name="DispatchErr", default=None)
    push_task_id: str | None = field(name="PushTaskID", default=None)
    content: Raw = field(name="Content", default=Raw(b"null"))


_TYPES = {"All": "all", "Tag": "tag", "User": "user"}
_WHOLE = re.compile(r"-?\d{1,19}", re.ASCII)
_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})[ Tt](\d{2}:\d{2}:\d{2})(\.\d{1,9})?(?:[Zz]|([+-])(\d{2}):?(\d{2}))?", re.ASCII)


def wire_task(raw: Raw, odd: Counter[Oddity]) -> WireTask | None:
    """Return a record's readable fields; None for one without an id. `odd` counts the unreadable ones.

    Well-formed answers are decoded in one step; this is for other records.
    """
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Raw])
    except msgspec.ValidationError:  # not an object
        odd[Oddity.ID] += 1
        return None
    task_id = _read(fields, "TaskID", _whole, odd, None)
    if task_id is None:
        odd[Oddity.ID] += 1
        return None
    return WireTask(
        task_id=task_id,
        sdkappid=_read(fields, "Sdkappid", _whole, odd),
        type=_read(fields, "Type", _text, odd),
        status=_read(fields, "Status", _text, odd),
        title=_read(fields, "Title", _text, odd),
        desc=_read(fields, "Desc", _text, odd),
        create_at=_read(fields, "CreateAt", _text, odd, Oddity.TIME),
        sched_at=_read(fields, "SchedAt", _text, odd, Oddity.TIME),
        dispatch_success=_read(fields, "DispatchSuccess", _flag, odd),
        dispatch_err=_read(fields, "DispatchErr", _text, odd),
        push_task_id=_read(fields, "PushTaskID", _text, odd),
        content=fields.get("Content", Raw(b"null")),
    )


def task_of(wire: WireTask, odd: Counter[Oddity]) -> Task:
    """Return the task as callers see it; `odd` counts invalid times."""
    return Task(
        id=wire.task_id,
        type=None if wire.type is None else _TYPES.get(wire.type, wire.type),
        status=wire.status,
        title=wire.title,
        description=wire.desc,
        created_at=_rfc3339(wire.create_at, odd),
        scheduled_at=_rfc3339(wire.sched_at, odd),
        dispatched=None if wire.dispatch_success is None else wire.dispatch_success == 1,
        dispatch_error=wire.dispatch_err or None,
        push_task_id=wire.push_task_id or None,
        content=wire.content,
    )


def _read(
    fields: dict[str, Raw],
    name: str,
    reader: Callable[[Any], T],
    odd: Counter[Oddity],
    oddity: Oddity | None = Oddity.VALUE,
) -> T | None:
    """Return a field's value; None if it is absent, null or unreadable, the last of which is counted as `oddity`."""
    raw = fields.get(name)
    if raw is None:
        return None
    value = msgspec.json.decode(raw)
    if value is None:
        return None
    try:
        return reader(value)
    except ValueError:
        if oddity is not None:
            odd[oddity] += 1
        return None


def _whole(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value not in INT64:
        raise ValueError("no whole number of 64 bits")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")  # noqa: TRY004 - of a value, not of an argument
    return value


def _flag(value: Any) -> bool | int:
    return value if isinstance(value, bool) else _whole(value)


def _rfc3339(text: str | None, odd: Counter[Oddity]) -> str | None:
    """Return a time as RFC 3339 in UTC, which is also the default zone; None for an empty, missing or invalid one."""
    if not text:
        return None
    found = _TIME.fullmatch(text)
    moment = None if found is None else _moment(found)
    if found is None or moment is None:
        odd[Oddity.TIME] += 1
        return None
    return f"{moment.isoformat()}{found[3] or ''}Z"


def _moment(found: re.Match[str]) -> datetime | None:
    day, time, _, sign, hours, minutes = found.groups()
    if time.startswith("24") or int(hours or 0) > 23 or int(minutes or 0) > 59:  # newer Pythons accept 24 as midnight
        return None
    try:
        moment = datetime.fromisoformat(f"{day}T{time}")
        if sign is None:
            return moment
        east = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        return moment + east if sign == "-" else moment - east
    except (ValueError, OverflowError):
        return None
