"""A fake gateway, for tests of the HTTP side alone; it passes the same contract suite as the real one."""

import asyncio
from typing import Any

import msgspec

from service.model.budgets import AppCondition, BudgetView, CallerStanding, RecentCalls, UsageView, Worst
from service.model.callers import AppInfo, Caller
from service.model.pages import AppState, Chunk, Page, PageRequest, Readiness, Source
from service.model.queries import Range
from service.model.tasks import Task

NOW_S = 1_750_000_000.0
TASKS = b'{"id":1,"title":"a"},{"id":2,"title":"b"}'


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
    """Answers every request with the same page, or as configured: with an error, or only when `go` is set."""

    def __init__(self) -> None:
        self.asks: list[PageRequest] = []
        self.changes: dict[str, Any] = {}
        self.changes_of_chunks: dict[str, Any] = {}
        self.view: dict[str, Any] = {}
        self.usage_view: dict[str, Any] = {}
        self.usage_asks: list[tuple[str, str | None, int]] = []
        self.error: Exception | None = None
        self.go: asyncio.Event | None = None
        self.waiting = 0
        self.cancelled = 0
        self.ready = True
        self.dropped: list[str] = []
        self.listed = tuple(msgspec.json.encode(task_of(number)) for number in range(250))
        self.block_size = 100
        self.told_at: dict[int, dict[str, Any] | Exception | asyncio.Event] = {}

    async def page(self, ask: PageRequest) -> Page:
        """The page."""
        self.asks.append(ask)
        if self.go is not None:
            self.waiting += 1
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            finally:
                self.waiting -= 1
        if self.error is not None:
            raise self.error
        values: dict[str, Any] = {
            "query": ask.query,
            "slice": ask.slice,
            "range": Range(since_s=1_747_000_000, until_s=1_752_000_000),
            "total": 95,
            "fetched_at_ms": int(NOW_S * 1000) - 4_000,
            "lifetime_s": 15.0,
            "body": TASKS,
            "source": Source.HIT,
        }
        return Page(**(values | self.changes))

    async def chunk(self, ask: PageRequest) -> Chunk:
        """Up to `block_size` tasks of `listed` from the offset on, or what is configured for that offset."""
        self.asks.append(ask)
        offset = ask.slice.offset
        told = self.told_at.get(offset, {})
        if isinstance(told, Exception):
            raise told
        if isinstance(told, asyncio.Event):
            try:
                await told.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            told = {}
        size, total = self.block_size, len(self.listed)
        stop = (offset // size + 1) * size
        values: dict[str, Any] = {
            "records": self.listed[offset:stop],
            "total": total,
            "following": stop if stop < total else None,
            "is_short": False,
            "fetched_at_ms": int(NOW_S * 1000) - 4_000,
            "range": Range(since_s=1_747_000_000, until_s=1_752_000_000),
            "lifetime_s": 15.0,
            "source": Source.HIT,
        }
        return Chunk(**(values | self.changes_of_chunks | told))

    def apps(self, caller: Caller) -> tuple[AppInfo, ...]:
        """The caller's apps."""
        return tuple(AppInfo(name=name, region="singapore") for name in sorted(caller.apps))

    async def budget(self, app: str, caller: Caller) -> BudgetView:
        """`view`, or a budget of which nothing was used."""
        if self.error is not None:
            raise self.error
        values: dict[str, Any] = {
            "app": app,
            "condition": AppCondition(state="serving", detail="Calls succeed."),
            "recent": RecentCalls(),
            "redis_away": False,
            "calls": 5,
            "window_s": 1.0,
            "free": 5,
            "pause_s": 0.0,
            "pause_reason": "",
            "worst": Worst(),
            "callers": (CallerStanding(name=caller.name),),
            "others": CallerStanding(name=None),
        }
        return BudgetView(**(values | self.view))

    async def usage(self, app: str, *, caller: Caller, only: str | None, since_s: int) -> UsageView:
        """`usage_view`, or no usage at all."""
        if self.error is not None:
            raise self.error
        self.usage_asks.append((app, only, since_s))
        values: dict[str, Any] = {
            "app": app,
            "only": only,
            "redis_away": False,
            "since_s": since_s,
            "until_s": int(NOW_S),
            "callers": (),
            "minutes": (),
        }
        return UsageView(**(values | self.usage_view))

    async def drop(self, app: str) -> int:
        """The configured result."""
        if self.error is not None:
            raise self.error
        self.dropped.append(app)
        return 12

    def readiness(self) -> Readiness:
        """The configured result."""
        apps = (AppState(name="shop", ok=True, detail="ok"), AppState(name="news", ok=False, detail="stopped"))
        return Readiness(ready=self.ready, redis="ok", apps=apps)
