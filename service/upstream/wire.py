"""The upstream's wire format, in both directions: `list_sched_task` as its page describes it."""

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Literal, NoReturn
from urllib.parse import urlencode

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from service.model.queries import Query, Range, Sort
from service.model.tasks import Listing
from service.upstream.apps import UpstreamApp
from service.upstream.masking import masked
from service.upstream.records import INT64, Oddity, WireTask, task_of, wire_task

PATH = "/v4/timpush/list_sched_task"
TEXT_MAX_CHARS = 200
TEXT_READ_CHARS = 4096
TOTAL_MAX = INT64[-1]

OrderBy = Literal["lower", "camel"]


class MalformedAnswer(ValueError):
    """An answer that differs from what the upstream's page promises. The text names the field and quotes nothing."""


class UpstreamRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream's error code, with its own text unchanged."""

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


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    total: Annotated[int, Meta(ge=0, le=TOTAL_MAX)] = field(name="Total")
    tasks: list[WireTask] | UnsetType | None = field(name="Tasks", default=UNSET)


class _OddPage(msgspec.Struct, frozen=True, kw_only=True):
    total: Annotated[int, Meta(ge=0, le=TOTAL_MAX)] = field(name="Total")
    tasks: list[msgspec.Raw] | UnsetType | None = field(name="Tasks", default=UNSET)


_heads = msgspec.json.Decoder(_Head)
_pages = msgspec.json.Decoder(_Page)
_odd_pages = msgspec.json.Decoder(_OddPage)

_SPELLINGS: dict[OrderBy, tuple[str, str]] = {"lower": ("createat", "schedat"), "camel": ("createAt", "schedAt")}
_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Any escape within a JSON string; the group is a surrogate that stands alone."""


def request_target(app: UpstreamApp, *, signature: str, random: int) -> str:
    """Return path and query string of a call. It contains the signature: never log or display it.

    `random` is 32 bits, new for each call.
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
    """Return the JSON body of a call."""
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


def read_answer(body: bytes, *, sdkappid: int, offset: int, want: int) -> Listing | UpstreamRefusal:
    """Read an answer to an app's call for `want` tasks from `offset` on. Raise MalformedAnswer.

    Unknown fields are ignored, and one irregular record does not affect the others: see `records.py`.
    """
    odd: Counter[Oddity] = Counter()
    try:
        body = _proper_text(body, odd)
        head = _heads.decode(body)
        if head.code != 0:
            return UpstreamRefusal(code=head.code, text=head.text or "")
        if head.status != "OK":
            _malformed("ActionStatus is not OK although ErrorCode is 0")
        total, records, left_out = _records(body, odd)
    except RecursionError as exc:
        raise MalformedAnswer("the answer is nested too deeply") from exc
    except msgspec.ValidationError as exc:
        raise MalformedAnswer(f"the answer lacks something or has it in another type: {exc}") from exc
    except msgspec.DecodeError as exc:
        raise MalformedAnswer(f"the answer is not JSON: {exc}") from exc
    if any(record.sdkappid not in (None, sdkappid) for record in records):
        _malformed("Tasks holds a task of another app")
    if len(records) + left_out > want:
        odd[Oddity.SURPLUS] += 1
        records = records[:want]
        left_out = min(left_out, want - len(records))
    if records and total < offset + len(records):
        odd[Oddity.TOTAL] += 1
        total = offset + len(records)
    return Listing(
        total=total,
        tasks=tuple(task_of(record, odd) for record in records),
        left_out=left_out,
        odd=tuple(odd.items()),
    )


def bounded(text: str, *, secret: str = "") -> str:
    """Return the upstream's text, safe to pass on: 200 characters at most, controls escaped, signature removed.

    `secret` is the signature that it may echo; see `masking.py`.
    """
    text = masked(text[:TEXT_READ_CHARS], signature=secret)
    cut = text[: TEXT_MAX_CHARS + 1]
    escaped = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
    return escaped if len(escaped) <= TEXT_MAX_CHARS else escaped[: TEXT_MAX_CHARS - 1] + "…"


def _proper_text(body: bytes, odd: Counter[Oddity]) -> bytes:
    """Return the answer as valid UTF-8 and JSON: raw JSON within is carried on unchanged.

    Invalid characters become U+FFFD, as web decoders do: half of a surrogate pair is one character less in one title,
    and no reason to lose a page.
    """
    try:
        body.decode()
    except UnicodeDecodeError:
        odd[Oddity.TEXT] += 1
        body = body.decode(errors="replace").encode()
    if b"\\ud" not in body and b"\\uD" not in body:
        return body

    def replaced(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            return found[0]
        odd[Oddity.TEXT] += 1
        return rb"\ufffd"

    return _ESCAPE.sub(replaced, body)


def _records(body: bytes, odd: Counter[Oddity]) -> tuple[int, list[WireTask], int]:
    """Return the total, the records, and how many were left out for lack of an id."""
    try:
        page = _pages.decode(body)
    except msgspec.ValidationError:
        odd_page = _odd_pages.decode(body)
    else:
        if page.tasks is UNSET and page.total:
            _malformed("the answer lacks Tasks")
        return page.total, page.tasks or [], 0
    read = [wire_task(raw, odd) for raw in odd_page.tasks or ()]
    records = [record for record in read if record is not None]
    return odd_page.total, records, len(read) - len(records)


def _upstream_time(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, tz=UTC):%Y-%m-%d %H:%M:%S}"


def _malformed(detail: str) -> NoReturn:
    raise MalformedAnswer(detail)
