"""The list itself: validate a call's body as the upstream's page says, then filter, sort and page an app's tasks.

Choices where the page is silent: the range filters the field that the list is ordered by, both ends included; ties are
in the order of TaskID; the keyword matches any part of title or description, ignoring case.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, TypeVar

import msgspec

from service.sandbox.refusals import SandboxCode, SandboxRefusal
from service.sandbox.tasks import DAY_S, MOMENT, SandboxTask, TaskInfo, info_at

TASKS_MAX = 100_000

T = TypeVar("T", bound=msgspec.Struct)

_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}", re.ASCII)


class ListBody(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A call's body with only its types checked. Unknown fields are ignored."""

    sdkappid: int
    offset: int
    want: int
    order_by: str
    asc: bool
    begin_time: str
    end_time: str
    keyword: str = ""


class ListRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a valid body. Times are whole seconds since the epoch."""

    field: Literal["created", "scheduled"]
    ascending: bool
    begin_s: int
    end_s: int
    offset: int
    want: int
    keyword: str


class ListPage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """A successful answer."""

    action_status: str = "OK"
    error_info: str = ""
    error_code: int = 0
    total: int
    tasks: tuple[TaskInfo, ...]


def read_body(raw: bytes, *, sdkappid: int, range_max_days: int, want_max: int | None) -> ListRequest | SandboxRefusal:
    """Validate a body against the page's rules."""
    body = read_fields(raw, ListBody)
    if isinstance(body, SandboxRefusal):
        return body
    if body.sdkappid != sdkappid:
        return bad_parameters("Sdkappid does not match the sdkappid in the URL")
    if body.offset < 0:
        return bad_parameters("Offset is negative")
    if body.want <= 0 or (want_max is not None and body.want > want_max):
        return bad_parameters("Want must be greater than 0" + (f" and at most {want_max}" if want_max else ""))
    if body.order_by not in ("createat", "createAt", "schedat", "schedAt"):
        return bad_parameters("OrderBy must be createat or schedat")
    begin_s, end_s = _epoch(body.begin_time), _epoch(body.end_time)
    if begin_s is None or end_s is None:
        return bad_parameters(f"{'BeginTime' if begin_s is None else 'EndTime'} is not of the form YYYY-MM-DD HH:MM:SS")
    if begin_s > end_s:
        return bad_parameters("BeginTime is later than EndTime")
    if end_s - begin_s > range_max_days * DAY_S:
        return bad_parameters(f"the time range exceeds {range_max_days} days")
    return ListRequest(
        field="created" if body.order_by.lower() == "createat" else "scheduled",
        ascending=body.asc,
        begin_s=begin_s,
        end_s=end_s,
        offset=body.offset,
        want=body.want,
        keyword=body.keyword,
    )


def read_fields(raw: bytes, kind: type[T]) -> T | SandboxRefusal:
    """Read a body with only its types checked."""
    try:
        msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return SandboxRefusal(code=SandboxCode.BAD_BODY, text="the request body is not a JSON object")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return bad_parameters(str(exc))


def bad_parameters(text: str) -> SandboxRefusal:
    """Return the refusal of a call's parameters."""
    return SandboxRefusal(code=SandboxCode.BAD_PARAMETERS, text=text)


def _epoch(text: str) -> int | None:
    if not _MOMENT.fullmatch(text):
        return None
    try:
        return int(datetime.strptime(text, MOMENT).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


class SandboxTasks:
    """One app's tasks: the first `total` from the seed, with later additions and removals. At most 100,000."""

    def __init__(self, source: Iterator[SandboxTask], *, total: int) -> None:
        self._source = source
        self._total = min(total, TASKS_MAX)
        self._tasks: dict[int, SandboxTask] | None = None  # created on first use: many tests never need them
        self._ordered: dict[str, list[SandboxTask]] = {}

    def __len__(self) -> int:
        return len(self._all())

    def add(self, tasks: Iterable[SandboxTask]) -> None:
        """Add tasks; one with an existing id replaces that one. Raise ValueError beyond the bound."""
        added = {task.id: task for task in tasks}
        if len(self._all().keys() | added.keys()) > TASKS_MAX:
            raise ValueError(f"at most {TASKS_MAX} tasks are kept")
        self._all().update(added)
        self._ordered.clear()

    def remove(self, ids: Iterable[int]) -> int:
        """Remove the tasks with these ids; return how many existed."""
        removed = sum(self._all().pop(number, None) is not None for number in ids)
        self._ordered.clear()
        return removed

    def resize(self, total: int) -> None:
        """Resize to `total` tasks: add the next ones from the seed, or remove those with the largest ids."""
        tasks = self._all()
        for number in sorted(tasks)[total:]:
            del tasks[number]
        while len(tasks) < min(total, TASKS_MAX):
            task = next(self._source)
            tasks[task.id] = task
        self._ordered.clear()

    def page(self, request: ListRequest, *, sdkappid: int, now_s: float) -> ListPage:
        """Return the requested page as it stands at `now_s`."""
        matching = self._matching(request)
        shown = matching[request.offset : request.offset + request.want]
        return ListPage(
            total=len(matching),
            tasks=tuple(info_at(task, sdkappid=sdkappid, now_s=now_s) for task in shown),
        )

    def one(self, task_id: int, *, sdkappid: int, now_s: float) -> TaskInfo | None:
        """Return one task as it stands at `now_s`, or None if there is none with this id."""
        task = self._all().get(task_id)
        return None if task is None else info_at(task, sdkappid=sdkappid, now_s=now_s)

    def _matching(self, request: ListRequest) -> list[SandboxTask]:
        created = request.field == "created"
        ordered = self._in_order(request.field)

        def key(task: SandboxTask) -> int:
            return task.created_s if created else task.scheduled_s

        start = bisect_left(ordered, request.begin_s, key=key)
        matching = ordered[start : bisect_right(ordered, request.end_s, lo=start, key=key)]
        if keyword := request.keyword.casefold():
            matching = [
                task for task in matching if keyword in task.title.casefold() or keyword in task.description.casefold()
            ]
        if not request.ascending:
            matching.sort(key=key, reverse=True)  # keeps ties in the order of TaskID
        return matching

    def _in_order(self, field: Literal["created", "scheduled"]) -> list[SandboxTask]:
        if field not in self._ordered:
            by_id = sorted(self._all().values(), key=lambda task: task.id)
            by_id.sort(key=lambda task: task.created_s if field == "created" else task.scheduled_s)
            self._ordered[field] = by_id
        return self._ordered[field]

    def _all(self) -> dict[int, SandboxTask]:
        if self._tasks is None:
            self._tasks = {task.id: task for task in islice(self._source, self._total)}
        return self._tasks
