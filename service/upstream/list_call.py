"""`list_sched_task` on the wire: the body of a call, and the content of an answer."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType, field

from service.model.queries import Query, Range, Sort
from service.model.tasks import Listing
from service.upstream.apps import UpstreamApp
from service.upstream.records import INT64, Oddity, WireTask, task_of, wire_task
from service.upstream.wire import MalformedAnswer, UpstreamRefusal, check_sdkappid, read_answer

TOTAL_MAX = INT64[-1]

OrderBy = Literal["lower", "camel"]


class _ListRequest(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    sdkappid: int
    offset: int
    want: int
    order_by: str
    asc: bool
    begin_time: str
    end_time: str
    keyword: str | UnsetType = UNSET


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    total: Annotated[int, Meta(ge=0, le=TOTAL_MAX)] = field(name="Total")
    tasks: list[WireTask] | UnsetType | None = field(name="Tasks", default=UNSET)


class _OddPage(msgspec.Struct, frozen=True, kw_only=True):
    total: Annotated[int, Meta(ge=0, le=TOTAL_MAX)] = field(name="Total")
    tasks: list[msgspec.Raw] | UnsetType | None = field(name="Tasks", default=UNSET)


_pages = msgspec.json.Decoder(_Page)
_odd_pages = msgspec.json.Decoder(_OddPage)

_SPELLINGS: dict[OrderBy, tuple[str, str]] = {"lower": ("createat", "schedat"), "camel": ("createAt", "schedAt")}


def list_body(app: UpstreamApp, query: Query, range_: Range, *, offset: int, want: int, order_by: OrderBy) -> bytes:
    """Return the JSON body of a call."""
    created, scheduled = _SPELLINGS[order_by]
    by_creation = query.sort in (Sort.CREATED, Sort.CREATED_DESC)
    return msgspec.json.encode(
        _ListRequest(
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


def read_listing(body: bytes, *, sdkappid: int, offset: int, want: int) -> Listing | UpstreamRefusal:
    """Read an answer to an app's call for `want` tasks from `offset` on. Raise MalformedAnswer.

    Unknown fields are ignored, and one irregular record does not affect the others: see `records.py`.
    """

    def read_content(content: bytes, odd: Counter[Oddity]) -> Listing:
        total, records, left_out = _records(content, odd)
        check_sdkappid(records, sdkappid=sdkappid)
        if len(records) + left_out > want:
            odd[Oddity.SURPLUS] += 1
            records = records[:want]
            left_out = min(left_out, want - len(records))
        if records and total < offset + len(records):
            odd[Oddity.TOTAL] += 1
            total = offset + len(records)
        tasks = tuple(task_of(record, odd) for record in records)
        return Listing(total=total, tasks=tasks, left_out=left_out, odd=tuple(odd.items()))

    return read_answer(body, read_content)


def _records(body: bytes, odd: Counter[Oddity]) -> tuple[int, list[WireTask], int]:
    """Return the total, the records, and how many were left out because they have no id."""
    try:
        page = _pages.decode(body)
    except msgspec.ValidationError:
        odd_page = _odd_pages.decode(body)
    else:
        if page.tasks is UNSET and page.total:
            raise MalformedAnswer("the answer lacks Tasks")
        return page.total, page.tasks or [], 0
    read = [wire_task(raw, odd) for raw in odd_page.tasks or ()]
    records = [record for record in read if record is not None]
    return odd_page.total, records, len(read) - len(records)


def _upstream_time(epoch_s: int) -> str:
    return f"{datetime.fromtimestamp(epoch_s, tz=UTC):%Y-%m-%d %H:%M:%S}"
