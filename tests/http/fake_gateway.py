"""A fake gateway, for tests of the HTTP side alone; it passes the same contract suite as the real one."""

import asyncio
from typing import Any

import msgspec

from service.model.budgets import (
    AppCondition,
    BudgetView,
    CallerStanding,
    Counts,
    RecentCalls,
    UsageInPeriod,
    UsageView,
    WorstWindows,
)
from service.model.callers import AppInfo, Caller
from service.model.calls import CallKind
from service.model.errors import UnknownApp, UnknownTask
from service.model.origin import FetchCost
from service.model.pages import (
    AppReadiness,
    Chunk,
    FoundTask,
    Page,
    PageRequest,
    Readiness,
    RequestTerms,
    Source,
    TaskRequest,
)
from service.model.queries import Range
from service.model.streams import task_labels_of
from service.model.tasks import Task

NOW_S = 1_750_000_000.0
FETCHED_AT_MS = int(NOW_S * 1000) - 4_000
RANGE = Range(since_s=1_747_000_000, until_s=1_752_000_000)


def task_of(number: int, *, content: bytes = b"{}") -> Task:
    """A task whose id encodes its place; every fifth is pending, every second for a tag."""
    return Task(
        id=1000 + number,
        type="all" if number % 2 else "tag",
        status="dispatched" if number % 5 else "pending",
        title=f"Task {number}",
        description="",
        created_at="2025-05-20T08:30:00Z",
        scheduled_at="2025-06-01T10:00:00Z",
        dispatched=True,
        dispatch_error=None,
        push_task_id=None,
        content=msgspec.Raw(content),
    )


class FakeGateway:
    """Serves `listed` of each app, stored and fresh, to everyone; or what it is configured to.

    `changes`, `changes_of_chunks`, `view` and `usage_view` replace fields of results. `error` fails every use case;
    `chunk_outcomes` are by offset: changed fields, an error to raise, or an event to wait for. Pages wait for `go`.
    """

    def __init__(self) -> None:
        self.requests: list[PageRequest] = []
        self.task_requests: list[TaskRequest] = []
        self.usage_requests: list[tuple[str, str | None, int]] = []
        self.dropped: list[str] = []
        self.waiting = 0
        self.cancelled = 0
        self.listed = tuple(msgspec.json.encode(task_of(number)) for number in range(250))
        self.app_names: tuple[str, ...] = ("news", "shop")
        self.block_size = 100
        self.ready = True
        self.error: Exception | None = None
        self.cost = FetchCost()
        self.go: asyncio.Event | None = None
        self.remembers = False
        self.changes: dict[str, Any] = {}
        self.changes_of_chunks: dict[str, Any] = {}
        self.chunk_outcomes: dict[int, dict[str, Any] | Exception | asyncio.Event] = {}
        self.view: dict[str, Any] = {}
        self.usage_view: dict[str, Any] = {}

    def page_from_memory(self, ask: PageRequest) -> Page | None:
        """See `GatewayAPI.page_from_memory`: the page, if `remembers`."""
        if not self.remembers:
            return None
        self.requests.append(ask)
        return self._page(ask)

    async def page(self, ask: PageRequest) -> Page:
        """See `GatewayAPI.page`."""
        self.requests.append(ask)
        self._charge(ask)
        if self.go is not None:
            await self._wait(self.go)
        return self._page(ask)

    def _page(self, ask: PageRequest) -> Page:
        self._serve(ask.query.app)
        matching = self.listed
        if not ask.only.is_everything:
            matching = tuple(record for record in matching if ask.only.takes(task_labels_of(record)))
        values: dict[str, Any] = {
            "query": ask.query,
            "slice": ask.slice,
            "only": ask.only,
            "range": RANGE,
            "total": len(matching),
            "fetched_at_ms": FETCHED_AT_MS,
            "lifetime_s": 15.0,
            "body": b",".join(matching[ask.slice.offset : ask.slice.offset + ask.slice.limit]),
            "source": Source.HIT,
        }
        return Page(**(values | self.changes))

    async def chunk(self, ask: PageRequest) -> Chunk:
        """See `GatewayAPI.chunk`."""
        self.requests.append(ask)
        self._charge(ask)
        offset = ask.slice.offset
        outcome = self.chunk_outcomes.get(offset, {})
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, asyncio.Event):
            await self._wait(outcome)
            outcome = {}
        self._serve(ask.query.app)
        following = (offset // self.block_size + 1) * self.block_size
        values: dict[str, Any] = {
            "records": self.listed[offset : min(following, offset + ask.slice.limit)],
            "total": len(self.listed),
            "following": following if following < len(self.listed) else None,
            "is_short": False,
            "fetched_at_ms": FETCHED_AT_MS,
            "range": RANGE,
            "lifetime_s": 15.0,
            "source": Source.HIT,
        }
        values |= self.changes_of_chunks | outcome
        return Chunk(**({"is_empty": offset // self.block_size * self.block_size >= values["total"]} | values))

    async def task(self, ask: TaskRequest) -> FoundTask:
        """See `GatewayAPI.task`."""
        self.task_requests.append(ask)
        self._charge(ask)
        if self.go is not None:
            await self._wait(self.go)
        self._serve(ask.app)
        body = next((record for record in self.listed if task_labels_of(record).id == ask.id), None)
        if body is None:
            raise UnknownTask
        values: dict[str, Any] = {
            "app": ask.app,
            "body": body,
            "fetched_at_ms": FETCHED_AT_MS,
            "lifetime_s": 15.0,
            "source": Source.HIT,
        }
        return FoundTask(**(values | self.changes))

    def apps(self, caller: Caller) -> tuple[AppInfo, ...]:
        """See `GatewayAPI.apps`."""
        return tuple(AppInfo(name=name, region="singapore") for name in self.app_names if name in caller.apps)

    async def budget(self, app: str, caller: Caller, kind: CallKind) -> BudgetView:
        """See `GatewayAPI.budget`; nothing was used."""
        self._serve(app, to=caller)
        values: dict[str, Any] = {
            "app": app,
            "kind": kind,
            "condition": AppCondition(state="serving", detail="Calls succeed."),
            "recent": RecentCalls(),
            "redis_away": False,
            "calls": 5,
            "window_s": 1.0,
            "free": 5,
            "pause_s": 0.0,
            "pause_reason": "",
            "worst": WorstWindows(),
            "callers": (CallerStanding(name=caller.name),),
            "others": CallerStanding(name=None),
        }
        return BudgetView(**(values | self.view))

    async def usage(
        self, app: str, *, caller: Caller, only: str | None, since_s: int, now_s: int, kind: CallKind
    ) -> UsageView:
        """See `GatewayAPI.usage`; nothing was used."""
        self._serve(app, to=caller)
        self.usage_requests.append((app, only, since_s))
        starts_s = range(min(max(since_s, now_s - 3540), now_s) // 60 * 60, now_s + 1, 60)
        values: dict[str, Any] = {
            "app": app,
            "kind": kind,
            "only": only,
            "redis_away": False,
            "since_s": starts_s[0],
            "until_s": now_s,
            "callers": (),
            "minutes": tuple(UsageInPeriod(start_s=start_s, counts=Counts()) for start_s in starts_s),
        }
        return UsageView(**(values | self.usage_view))

    async def drop(self, app: str) -> int:
        """See `GatewayAPI.drop`; there are always twelve values."""
        self._serve(app)
        self.dropped.append(app)
        return 12

    def readiness(self) -> Readiness:
        """See `GatewayAPI.readiness`; one of the apps is stopped."""
        apps = (AppReadiness(name="news", ok=False, detail="stopped"), AppReadiness(name="shop", ok=True, detail=""))
        return Readiness(ready=self.ready, redis="ok", apps=apps)

    def _charge(self, ask: RequestTerms) -> None:
        """Charge `cost` to the request, however it ends."""
        if ask.origin.cost is not None:
            ask.origin.cost.waited_s += self.cost.waited_s
            ask.origin.cost.upstream_s += self.cost.upstream_s
            ask.origin.cost.calls += self.cost.calls

    def _serve(self, app: str, *, to: Caller | None = None) -> None:
        if self.error is not None:
            raise self.error
        if app not in self.app_names or (to is not None and app not in to.apps):
            raise UnknownApp

    async def _wait(self, event: asyncio.Event) -> None:
        self.waiting += 1
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1
