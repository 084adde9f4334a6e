"""Requests to the gateway, and its results."""

from enum import StrEnum

import msgspec

from service.model.budgets import BudgetNote
from service.model.callers import Caller
from service.model.freshness import CacheDirectives, StaleReason
from service.model.origin import NOBODY, Origin
from service.model.queries import Query, Range, Slice
from service.model.streams import TaskFilter


class RequestTerms(msgspec.Struct, frozen=True, kw_only=True):
    """The caller of a request, with its patience (seconds) and directives."""

    caller: Caller
    patience_s: float
    directives: CacheDirectives
    origin: Origin = NOBODY


class PageRequest(RequestTerms, frozen=True, kw_only=True):
    """A request for a slice of a query.

    With `only`, the slice counts only the tasks that match it; no more than `filter_max_blocks` are searched.
    """

    query: Query
    slice: Slice
    only: TaskFilter = TaskFilter()
    filter_max_blocks: int = 10


class TaskRequest(RequestTerms, frozen=True, kw_only=True):
    """A request for one task of an app."""

    app: str
    id: int


class Source(StrEnum):
    """The origin of an answer, or of the newest part of a page."""

    HIT = "hit"
    """Stored and fresh."""
    JOINED = "joined"
    """From a fetch that was shared with another request."""
    FETCHED = "fetched"
    """From a fetch made for this request."""
    STALE = "stale"
    """Stored and stale."""


class Forward(StrEnum):
    """Why the upstream was called (RFC 9211, 2.2)."""

    MISS = "miss"
    """Nothing was stored."""
    STALE = "stale"
    """The stored answer was stale."""
    REQUEST = "request"
    """The stored answer was fresh, but the request did not accept it."""


class Obtained(msgspec.Struct, frozen=True, kw_only=True):
    """How old an answer is, and how it was obtained.

    `lifetime_s` is its freshness lifetime, counted from its fetch. `forward` is None if no call was made or joined.
    """

    fetched_at_ms: int
    lifetime_s: float
    source: Source
    stale_reason: StaleReason | None = None
    forward: Forward | None = None
    budget: BudgetNote | None = None


class FoundTask(Obtained, frozen=True, kw_only=True):
    """One task; `body` is its JSON text."""

    app: str
    body: bytes


class Page(Obtained, frozen=True, kw_only=True):
    """A slice, cut from one block or two; as old as the older one, whose range is `range`.

    `body` is the JSON text of the tasks, joined by commas. `missing` is how many tasks the slice lacks compared to the
    total: the upstream returned fewer, or records without an id.

    `consistent` is false if the list was seen to change between blocks. With `only`, `total` and `slice` count the
    tasks that match it, and the page is made from all blocks of the list.
    """

    query: Query
    slice: Slice
    range: Range
    total: int
    body: bytes
    missing: int = 0
    consistent: bool = True
    only: TaskFilter = TaskFilter()


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """One block's part of a slice, record by record: a whole list is read chunk by chunk.

    `following` is the offset of the next block, None at the end of the list; `is_short` says that the block holds fewer
    records than its own total promises, or was seen to change while it was fetched; `is_empty` that it holds none at
    all. `range` and `lifetime_s` are the block's. The rest is as in a page.
    """

    records: tuple[bytes, ...]
    total: int
    following: int | None
    is_short: bool
    is_empty: bool = False
    fetched_at_ms: int
    range: Range
    lifetime_s: float
    source: Source
    missing: int = 0
    budget: BudgetNote | None = None


class AppReadiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether fetches for one app are possible now; `detail` says in plain words why not."""

    name: str
    ok: bool
    detail: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the gateway can serve, and the state of its parts."""

    ready: bool
    redis: str
    apps: tuple[AppReadiness, ...]
