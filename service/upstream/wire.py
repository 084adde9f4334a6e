"""The upstream's wire format, both ways: `list_sched_task` as its page describes it."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, NoReturn
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from service.model.queries import Query, Range, Sort
from service.model.tasks import Listing, Task
from service.upstream.apps import UpstreamApp

PATH = "/v4/timpush/list_sched_task"
TEXT_MAX_CHARS = 200

OrderBy = Literal["lower", "camel"]


class MalformedAnswer(ValueError):
    """An answer that is not what the upstream's page promises. The text names the field and quotes nothing."""


class UpstreamRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream's error code, with its own text as it stands."""

    code: int
    text: str


class _Request(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    sdkappid: int
    offset: int
    want: int
    order_by: str
    asc: bool
    begin_time: str
    end_time: str
    keyword: str | UnsetType = UNSET


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    code: int = field(name="ErrorCode")
    text: str | None = field(name="ErrorInfo", default=None)
    status: str = field(name="ActionStatus", default="OK")


class _Task(msgspec.Struct, frozen=True, kw_only=True):
    task_id: int = field(name="TaskID")
    type: str = field(name="Type")
    status: str = field(name="Status")
    title: str = field(name="Title")
    desc: str = field(name="Desc")
    create_at: str = field(name="CreateAt")
    sched_at: str = field(name="SchedAt")
    dispatch_success: int = field(name="DispatchSuccess")
    dispatch_err: str | None = field(name="DispatchErr")
    push_task_id: str | None = field(name="PushTaskID")
    content: msgspec.Raw = field(name="Content")


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    total: Annotated[int, Meta(ge=0)] = field(name="Total")
    tasks: tuple[_Task, ...] | None = field(name="Tasks")


_heads = msgspec.json.Decoder(_Head)
_pages = msgspec.json.Decoder(_Page)

_SPELLINGS: dict[OrderBy, tuple[str, str]] = {"lower": ("createat", "schedat"), "camel": ("createAt", "schedAt")}
_TYPES = {"All": "all", "Tag": "tag", "User": "user"}
_SIGNATURE = re.compile(r"eJ[A-Za-z0-9*_%-]{40,}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}", re.ASCII)


def request_target(app: UpstreamApp, *, signature: str, random: int) -> str:
    """Path and query string of a call; it holds the signature, so it is never logged or told.

    `random` is 32 bits, fresh for each call.
    """
    query = {
        "sdkappid": app.sdkappid,
        "identifier": app.admin,
        "usersig": signature,
        "random": random,
        "contenttype": "json",
    }
    return f"{PATH}?{urlencode(query, safe='*')}"


def request_body(app: UpstreamApp, query: Query, range_: Range, *, offset: int, want: int, order_by: OrderBy) -> bytes:
    """The JSON body of a call."""
    created, scheduled = _SPELLINGS[order_by]
    by_creation = query.sort in (Sort.CREATED, Sort.CREATED_DESC)
    return msgspec.json.encode(
        _Request(
            sdkappid=app.sdkappid,
            offset=offset,
            want=want,
            order_by=created if by_creation else scheduled,
            asc=query.sort in (Sort.CREATED, Sort.SCHEDULED),
            begin_time=_upstream_time(range_.since_s),
            end_time=_upstream_time(range_.until_s),
            keyword=query.keyword or UNSET,
        )
    )


def read_answer(body: bytes, *, want: int) -> Listing | UpstreamRefusal:
    """Read an answer to a call for `want` tasks. Unknown fields are ignored. Raises MalformedAnswer."""
    try:
        body.decode()  # raw JSON within is carried on as it is, so it has to be proper UTF-8 as well
        head = _heads.decode(body)
        if head.code != 0:
            return UpstreamRefusal(code=head.code, text=head.text or "")
        if head.status != "OK":
            _malformed("ActionStatus is not OK although ErrorCode is 0")
        page = _pages.decode(body)
    except UnicodeDecodeError as exc:
        raise MalformedAnswer("the answer is not UTF-8") from exc
    except RecursionError as exc:
        raise MalformedAnswer("the answer is nested too deeply") from exc
    except msgspec.ValidationError as exc:
        raise MalformedAnswer(f"the answer lacks something or has it in another type: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise MalformedAnswer(f"the answer is not JSON: {exc}") from exc
    tasks = page.tasks or ()
    if len(tasks) > want:
        _malformed(f"Tasks holds {len(tasks)} tasks where {want} were asked for")
    if len(tasks) > page.total:
        _malformed(f"Tasks holds {len(tasks)} tasks where Total is {page.total}")
    return Listing(total=page.total, tasks=tuple(_task(task, at=f"$.Tasks[{i}]") for i, task in enumerate(tasks)))


def bounded(text: str, *, secret: str = "") -> str:
    """The upstream's text, safe to pass on: 200 characters at most, control characters escaped, `secret` taken out.

    So is whatever looks like a signature: one that was replaced meanwhile is valid for a long time yet.
    """
    if secret:
        text = text.replace(secret, "[signature]")
    text = _SIGNATURE.sub("[signature]", text)
    cut = text[: TEXT_MAX_CHARS + 1]
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
    return escaped if len(escaped) <= TEXT_MAX_CHARS else escaped[: TEXT_MAX_CHARS - 1] + "…"


def _task(task: _Task, *, at: str) -> Task:
    return Task(
        id=task.task_id,
        type=_TYPES.get(task.type, task.type),
        status=task.status,
        title=task.title,
        description=task.desc,
        created_at=_rfc3339(task.create_at, at=f"{at}.CreateAt"),
        scheduled_at=_rfc3339(task.sched_at, at=f"{at}.SchedAt"),
        dispatched=task.dispatch_success == 1,
        dispatch_error=task.dispatch_err or None,
        push_task_id=task.push_task_id or None,
        content=task.content,
    )


def _upstream_time(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, tz=UTC):%Y-%m-%d %H:%M:%S}"


def _rfc3339(text: str, *, at: str) -> str | None:
    """`YYYY-MM-DD HH:MM:SS` in UTC as RFC 3339; None for an empty one."""
    if not text:
        return None
    if not _TIME.fullmatch(text) or not _in_calendar(text):
        _malformed(f"not a time written as YYYY-MM-DD HH:MM:SS - at `{at}`")
    return f"{text[:10]}T{text[11:]}Z"


def _in_calendar(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return text[11:13] != "24"  # newer Pythons take it for the next midnight


def _malformed(detail: str) -> NoReturn:
    raise MalformedAnswer(detail)
