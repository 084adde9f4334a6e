"""The parameters of `GET /tasks`: one table for both parsing and documentation."""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Generic, TypeVar

import msgspec

from service.model.callers import Caller
from service.model.errors import BadRequest, Fault, NotAllowed, UnknownApp
from service.model.long_lists import part_s, query_parts
from service.model.queries import Moment, Query, Slice, Sort, parse_moment, parse_until
from service.model.streams import STATUSES, TYPES, TaskFilter
from service.web.headers.link import link_query
from service.web.query_string import FAULTS_MAX, read_query_string
from service.web.settings import WebSettings

T = TypeVar("T")

KEYWORD_MAX = 128
_NO_CONTROLS = r"^[^\x00-\x1F\x7F-\x9F]+$"
_APP_PATTERN = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
MOMENT_PATTERN = (
    r"^(now|[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2}))?"
    r"|[+-]?P(?=[0-9T])([0-9]{1,6}W)?([0-9]{1,6}D)?(T(?=[0-9])([0-9]{1,8}H)?([0-9]{1,8}M)?([0-9]{1,9}S)?)?)$"
)
"""The syntax that `parse_moment` accepts, for the contract. Dates must also exist in the calendar."""

NO_APP = Fault(parameter="app", detail="is required: this caller may read more than one app")

NDJSON = "application/x-ndjson"
"""The form of streams."""

_NO_PAGE = "is for pages only: a stream continues to the end of the list"

CACHED_MAX, CACHED_MAX_BYTES = 1000, 500
"""How many query strings are kept parsed, and up to which length."""

_DAY_S = 86_400
_DIGITS = re.compile(r"[0-9]{1,10}")
_SORTS = {each.value: each for each in Sort}


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """An example value of a parameter, and its meaning."""

    value: str | int
    summary: str


class Parameter(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One parameter. `read` parses its text, or raises ValueError with a message for the caller."""

    name: str
    read: Callable[[str], T]
    description: str
    examples: tuple[Example, ...]
    schema: dict[str, Any]


class TaskParameters(msgspec.Struct, frozen=True, kw_only=True):
    """All parameters, in the order of the contract."""

    app: Parameter[str]
    since: Parameter[Moment]
    until: Parameter[Moment]
    sort: Parameter[Sort]
    q: Parameter[str]
    offset: Parameter[int]
    limit: Parameter[int]
    status: Parameter[tuple[str, ...]]
    type: Parameter[tuple[str, ...]]

    def __iter__(self) -> Iterator[Parameter[Any]]:
        return (getattr(self, name) for name in self.__struct_fields__)


class _ParsedQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The time-independent content of a query string; `has_app` says whether it names an app."""

    query: Query
    slice: Slice
    only: TaskFilter
    has_app: bool
    faults: tuple[Fault, ...]
    link_query: str


class ParsedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parsed parameters of a request. For a stream, the slice is as long as a block.

    `parts` are the queries to read one after the other, if a stream's range is longer than the upstream accepts.
    `link_query` is what a link to another slice repeats (`headers/link.py`).
    """

    query: Query
    parts: tuple[Query, ...]
    slice: Slice
    only: TaskFilter
    link_query: str


def task_parameters(settings: WebSettings) -> TaskParameters:
    """Return the table with the bounds and defaults of these settings."""
    moment_text = (
        "An RFC 3339 instant with its offset, a date in UTC ({date}), `now`, or a signed ISO 8601 duration from now in "
        f"weeks, days, hours, minutes and seconds. Relative moments count from the last full {settings.align_s} s, so "
        "that requests made at different seconds share one answer. Encode a plus sign as `%2B`."
    )
    moment_examples = (
        Example(value="2025-05-01T00:00:00Z", summary="an instant"),
        Example(value="2025-05-01", summary="a date"),
        Example(value="-P7D", summary="seven days ago"),
        Example(value="PT12H", summary="in twelve hours"),
        Example(value="now", summary="now"),
    )
    which_time = "The range is over the time that `sort` names: `scheduled_at` or `created_at`."
    return TaskParameters(
        app=app_parameter("Name of the app whose tasks are listed."),
        since=Parameter(
            name="since",
            read=parse_moment,
            description=f"Start of the range, inclusive. {which_time} {moment_text.format(date='its first second')}",
            examples=moment_examples,
            schema={"type": "string", "pattern": MOMENT_PATTERN, "default": str(settings.since)},
        ),
        until=Parameter(
            name="until",
            read=parse_until,
            description="End of the range, inclusive, not before `since`. "
            f"{which_time} {moment_text.format(date='its last second')}",
            examples=moment_examples,
            schema={"type": "string", "pattern": MOMENT_PATTERN, "default": str(settings.until)},
        ),
        sort=Parameter(
            name="sort",
            read=_read_sort,
            description="The order of the list; a leading minus means latest first.",
            examples=(Example(value="-scheduled_at", summary="latest scheduled first"),),
            schema={"$ref": "#/components/schemas/Sort", "default": Sort.SCHEDULED_DESC.value},
        ),
        q=Parameter(
            name="q",
            read=_read_keyword,
            description="A keyword to search for in title and description; the upstream's matching is fuzzy.",
            examples=(Example(value="spring sale", summary="tasks that mention a spring sale"),),
            schema={"type": "string", "pattern": _NO_CONTROLS, "minLength": 1, "maxLength": KEYWORD_MAX},
        ),
        offset=_count(
            "offset",
            range(settings.offset_max + 1),
            default=0,
            description="How many tasks of the list to skip.",
            example=40,
        ),
        limit=_count(
            "limit",
            range(1, settings.limit_max + 1),
            default=settings.limit_default,
            description="The maximum number of tasks to return. Not for streams, which continue to the end of the "
            "list.",
            example=20,
        ),
        status=_choices("status", STATUSES, example="pending"),
        type=_choices("type", TYPES, example="tag"),
    )


def app_parameter(description: str) -> Parameter[str]:
    """Return the parameter `app`, shared by all resources that belong to one app."""
    return Parameter(
        name="app",
        read=str,
        description=f"{description} Optional if the caller may read only one app.",
        examples=(Example(value="shop", summary="the app called shop"),),
        schema={"type": "string", "pattern": _APP_PATTERN, "minLength": 1, "maxLength": 63},
    )


def check_access(app: str, caller: Caller) -> str:
    """Return the app if the caller may read it. Raise UnknownApp, or NotAllowed if its existence is no secret."""
    if app not in caller.apps:
        raise NotAllowed("this caller may not read this app") if app in caller.knows else UnknownApp
    return app


def _count(name: str, bounds: range, *, default: int, description: str, example: int) -> Parameter[int]:
    least, greatest = bounds[0], bounds[-1]

    def read(text: str) -> int:
        value = int(text) if _DIGITS.fullmatch(text) else least - 1
        if value not in bounds:
            raise ValueError(f"must be an integer from {least} to {greatest}, digits only")
        return value

    return Parameter(
        name=name,
        read=read,
        description=description,
        examples=(Example(value=example, summary=f"{example} tasks"),),
        schema={"type": "integer", "minimum": least, "maximum": greatest, "default": default},
    )


def _choices(name: str, choices: tuple[str, ...], *, example: str) -> Parameter[tuple[str, ...]]:
    """Return a filter parameter: one value, or several separated by commas.

    Repeated parameters are not an alternative: proxies and libraries differ in which of several they pass on, so each
    parameter may occur only once.
    """

    def read(text: str) -> tuple[str, ...]:
        values = text.split(",")
        if not set(values) <= set(choices) or len(set(values)) < len(values):
            raise ValueError(f"must be one or several of {', '.join(choices)}, each once, separated by commas")
        return tuple(choice for choice in choices if choice in values)

    one = "|".join(choices)
    return Parameter(
        name=name,
        read=read,
        description=f"Only tasks with this {name}, or with any of several: "
        f"{', '.join(f'`{each}`' for each in choices)}. `total`, `offset`, `limit` and `Link` then count only these "
        "tasks. The upstream has no such filter: for a page, all tasks of the range are searched, up to a limit (422 "
        "`range-too-wide`); streams have no limit.",
        examples=(
            Example(value=example, summary=f"only tasks whose {name} is {example}"),
            Example(value=",".join(choices[:2]), summary="tasks with either value"),
        ),
        schema={"type": "string", "pattern": f"^({one})(,({one})){{0,{len(choices) - 1}}}$"},
    )


def _read_sort(text: str) -> Sort:
    sort = _SORTS.get(text)
    if sort is None:
        raise ValueError(f"must be one of {', '.join(_SORTS)}")
    return sort


def _read_keyword(text: str) -> str:
    if len(text) > KEYWORD_MAX:
        raise ValueError(f"must have at most {KEYWORD_MAX} characters")
    return text


class TasksReader:
    """A reusable parser of request parameters."""

    def __init__(self, settings: WebSettings) -> None:
        self.settings = settings
        parameters = tuple(task_parameters(settings))
        self._names = {parameter.name.encode(): parameter.name for parameter in parameters}
        self._readers = {parameter.name: parameter.read for parameter in parameters}
        self._read_cached = lru_cache(maxsize=CACHED_MAX)(self._read)

    def read(
        self, query_string: bytes, *, caller: Caller, now_s: float, streamed: bool = False, divided: bool = False
    ) -> ParsedRequest:
        """Return the parsed parameters of a page request, or of a stream if `streamed`.

        With `divided`, a range may be longer than the upstream accepts.

        Raise BadRequest with all faults; if there are none, UnknownApp or NotAllowed.
        """
        read = self._read_cached if len(query_string) <= CACHED_MAX_BYTES else self._read
        parsed = read(query_string, only_app(caller), streamed)
        query, faults, settings = parsed.query, list(parsed.faults), self.settings
        faulty = {fault.parameter for fault in faults}
        if not parsed.has_app and "app" not in faulty and len(caller.apps) > 1:
            faults.append(NO_APP)
        if faulty.isdisjoint(("since", "until")):
            faults += _range_faults(query, settings, now_s, divided=divided)
        if faults:
            raise BadRequest(*faults[:FAULTS_MAX])
        check_access(query.app, caller)
        parts = _parts(query, settings, now_s) if divided else (query,)
        return ParsedRequest(
            query=query, parts=parts, slice=parsed.slice, only=parsed.only, link_query=parsed.link_query
        )

    def _read(self, query_string: bytes, default_app: str, streamed: bool) -> _ParsedQuery:
        texts, faults = read_query_string(query_string, known=self._names)
        settings = self.settings
        given: dict[str, Any] = {}
        for name, text in texts.items():
            try:
                given[name] = self._readers[name](text)
            except ValueError as exc:
                faults.append(Fault(parameter=name, detail=str(exc)))
        if streamed and "limit" in texts:
            faults.append(Fault(parameter="limit", detail=_NO_PAGE))
        return _ParsedQuery(
            query=Query(
                app=given.get("app") or default_app,
                since=given.get("since", settings.since),
                until=given.get("until", settings.until),
                sort=given.get("sort", Sort.SCHEDULED_DESC),
                keyword=given.get("q"),
            ),
            slice=Slice(
                offset=given.get("offset", 0),
                limit=settings.block_size if streamed else given.get("limit", settings.limit_default),
            ),
            only=TaskFilter(statuses=given.get("status", ()), types=given.get("type", ())),
            has_app="app" in texts,
            faults=tuple(faults),
            link_query=link_query(query_string),
        )


def resolve_app(app: str | None, caller: Caller, *, faults: list[Fault]) -> str:
    """Return the app that a request names, or the only one that the caller may read.

    Raise BadRequest if there are `faults`, or the app must be named; UnknownApp or NotAllowed as `check_access` does.
    """
    if not faults and app is None and len(caller.apps) > 1:
        raise BadRequest(NO_APP)
    if faults:
        raise BadRequest(*faults)
    return check_access(app or only_app(caller), caller)


def only_app(caller: Caller) -> str:
    """Return the app of a caller that may read only one, else an empty text."""
    return next(iter(caller.apps)) if len(caller.apps) == 1 else ""


def _range_faults(query: Query, settings: WebSettings, now_s: float, *, divided: bool) -> Iterator[Fault]:
    """Yield faults that concern both ends of the range, resolved at `now_s`."""
    range_ = query.range_at(now_s, align_s=settings.align_s)
    if range_.since_s > range_.until_s:
        detail = f"is after until (default: {settings.until}); relative moments count from the last full "
        yield Fault(parameter="since", detail=f"{detail}{settings.align_s} s")
    days = settings.range_max_days
    if days is None:
        return
    longest_s = days * _DAY_S
    if divided:
        longest_s = max(longest_s, part_s(longest_s) * settings.stream_max_parts)
    if range_.until_s - range_.since_s > longest_s:
        detail = f"is more than {longest_s / _DAY_S:g} days before until, the longest range "
        remedy = f"of one request: narrow it, or request a stream (Accept: {NDJSON}), which may be longer"
        yield Fault(parameter="since", detail=detail + ("of a stream" if divided else remedy))


def _parts(query: Query, settings: WebSettings, now_s: float) -> tuple[Query, ...]:
    """Return the parts in which the upstream accepts the query."""
    days = settings.range_max_days
    if days is None:
        return (query,)
    return query_parts(query, now_s=now_s, align_s=settings.align_s, longest_s=days * _DAY_S)
