"""The use case: serve a slice of a list, from stored blocks if possible, otherwise from the upstream."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal, get_args

import msgspec
import structlog

from service.budget.line.jobs import Fetched, LineIsFull, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.fallback import FallbackScheduler
from service.cache.purge import Purge
from service.cache.sequential_reads import SequentialReads
from service.gateway.fetch import BlockJob, Fetching
from service.gateway.filtered import IN_FLIGHT, all_blocks, filtered_page
from service.gateway.paging import Part, chunk_of, page_of
from service.model.blocks import NOTHING, Block, CachedBlock, RefusedQuery
from service.model.budgets import BudgetNote, BudgetView, UsageView
from service.model.callers import AppInfo, Caller
from service.model.errors import (
    LineFull,
    NothingStored,
    QueryRefused,
    StoreUnavailable,
    TaskgateError,
    UnknownApp,
    UpstreamError,
    WaitTooLong,
)
from service.model.freshness import CacheDirectives, Freshness, Lifetimes, StaleReason, judge
from service.model.pages import AppState, Chunk, Forward, Page, PageRequest, Readiness, Source
from service.model.queries import Query
from service.upstream.codes import advice_for
from service.usage.app_state import app_condition
from service.usage.budget_view import budget_view, parties
from service.usage.store import UsageStore
from service.usage.usage_view import is_by_hour, usage_view

log = structlog.get_logger()

RENEWAL = "~renewal"
"""The caller name for background renewals of blocks; configured callers' names cannot contain `~`."""
RENEWAL_PATIENCE_S = 30.0
"""When a renewal is given up; the next request starts a new one."""
RENEWALS_MAX = 100
"""How many blocks of an app may wait for renewal on one replica."""
AHEAD = "~ahead"
"""The caller name for background fetches of blocks that no request has asked for yet."""
AHEAD_MAX = 20
AHEAD_S = 5.0
"""How long such a fetch may wait for a spare turn: after that, its caller will have asked for the block itself."""


Lookup = Literal["memory", "redis", "stale", "none"]
"""Whether a fresh block was found, and where, or a stale one, or none."""
LOOKUPS: tuple[Lookup, ...] = get_args(Lookup)


class ServedApp(msgspec.Struct, frozen=True, kw_only=True):
    """One app and the parts that serve it; `sharing` only if replicas share the calls while Redis is away."""

    info: AppInfo
    fetching: Fetching
    line: Line
    usage_store: UsageStore
    sharing: FallbackScheduler | None
    calls: int
    window_s: float

    @property
    def calls_alone(self) -> int | None:
        """Return how many calls this replica gives out on its own, or None while it does not."""
        return None if self.sharing is None else self.sharing.calls_alone

    @property
    def is_cut_off(self) -> bool:
        """Return whether the last call to Redis failed."""
        return self.line.is_cut_off or self.calls_alone is not None


class Gateway:
    """Serves pages of all apps. `clock` is the shared clock, in seconds since the epoch."""

    def __init__(
        self,
        apps: Mapping[str, ServedApp],
        *,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        purge: Purge,
        sequential_reads: SequentialReads | None,
    ) -> None:
        """With `sequential_reads`, prefetch the next block of a caller that pages in order."""
        self._apps = apps
        self._purge = purge
        self._sequential_reads = sequential_reads
        self._lifetimes = lifetimes
        self._clock = clock
        self._background: set[asyncio.Task[None]] = set()
        self._serves = False
        self.lookups: Counter[Lookup] = Counter()
        """Counts of block look-ups, by result."""

    def set_lifetimes(self, lifetimes: Lifetimes) -> None:
        """Judge stored blocks by these lifetimes from now on."""
        self._lifetimes = lifetimes

    async def page(self, ask: PageRequest) -> Page:
        """Return the requested slice. Raise Refused, UpstreamError or StoreUnavailable; may be cancelled."""
        app = self._apps.get(ask.query.app)
        if app is None:
            raise UnknownApp
        try:
            parts = await (self._parts(app, ask) if ask.only.is_everything else self._all_parts(app, ask))
        except (WaitTooLong, LineFull, UpstreamError) as exc:
            exc.budget = self._note(app)
            raise
        return self._page(app, ask, parts)

    def recall(self, ask: PageRequest) -> Page | None:
        """Return the requested slice if this replica's memory holds all of it, fresh; does no I/O. Raise QueryRefused.

        Filtered slices are left to `page`: they may take many blocks.
        """
        app = self._apps.get(ask.query.app)
        if app is None or not ask.only.is_everything:
            return None
        size = app.fetching.block_size
        parts: list[Part] = []
        for index in ask.slice.blocks(size):
            if parts and parts[0].block.total <= index * size:
                break
            part = self._recalled(app, ask, index)
            if part is None:
                return None
            parts.append(part)
        self.lookups["memory"] += len(parts)
        return self._page(app, ask, parts)

    async def chunk(self, ask: PageRequest) -> Chunk:
        """Return the part of the requested slice that its first block holds. Raise as `page` does; may be cancelled."""
        app = self._apps.get(ask.query.app)
        if app is None:
            raise UnknownApp
        size = app.fetching.block_size
        try:
            part = await self._part(app, ask, ask.slice.offset // size, patience_s=ask.patience_s)
        except (WaitTooLong, LineFull, UpstreamError) as exc:
            exc.budget = self._note(app)
            raise
        note = None if part.source is Source.HIT else self._note(app)
        lifetime_s = self._lifetimes.of(part.block)
        return chunk_of(ask, part, block_size=size, lifetime_s=lifetime_s, budget=note)

    def apps(self, caller: Caller) -> tuple[AppInfo, ...]:
        """Return the apps that the caller may read, by name."""
        return tuple(app.info for name, app in sorted(self._apps.items()) if name in caller.apps)

    async def budget(self, app: str, caller: Caller) -> BudgetView:
        """Return the app's budget as visible to the caller; partial while Redis is away. Raise UnknownApp."""
        found = self._apps.get(app)
        if found is None or app not in caller.apps:
            raise UnknownApp
        store = found.usage_store
        ticked, tallies, worst, recent = await asyncio.gather(
            found.line.look(), store.tallies(), store.worst(), store.recent_calls()
        )
        condition = app_condition(
            recent,
            stopped=found.fetching.stopped(),
            redis_away=found.is_cut_off,
            makes_calls=found.calls_alone is not None,
            pause_s=0.0 if ticked is None else ticked.pause_in_ms / 1000,
            pause_reason="" if ticked is None else ticked.pause_reason,
            stale_last_minute=sum(tally.minute.stale for tally in tallies.values()),
        )
        return budget_view(
            parties(ticked, found.line.waiting(), tallies),
            app=app,
            caller=caller,
            ticked=ticked,
            worst=worst,
            recent=recent,
            condition=condition,
            redis_away=found.is_cut_off,
            calls=found.calls_alone or found.calls,
            window_s=found.window_s,
        )

    async def usage(self, app: str, *, caller: Caller, only: str | None, since_s: int) -> UsageView:
        """Return callers' usage of the app since `since_s`, at most a week ago; `only` selects one caller. Raise
        UnknownApp."""
        found = self._apps.get(app)
        if found is None or app not in caller.apps:
            raise UnknownApp
        now_s = int(self._clock())
        return usage_view(
            await found.usage_store.minutes(),
            await found.usage_store.hours() if is_by_hour(since_s, now_s=now_s) else None,
            app=app,
            only=only,
            redis_away=found.is_cut_off,
            since_s=since_s,
            now_s=now_s,
        )

    async def drop(self, app: str) -> int:
        """Drop all blocks of an app on all replicas; return how many values Redis had. Raise UnknownApp,
        StoreUnavailable."""
        if app not in self._apps:
            raise UnknownApp
        return await self._purge.drop(app)

    def readiness(self) -> Readiness:
        """Return what can be served now. Ready from `start` to `leave`, even without Redis: memory may hold pages."""
        states = []
        for name, app in sorted(self._apps.items()):
            stopped = app.fetching.stopped()
            states.append(AppState(name=name, ok=stopped is None, detail="" if stopped is None else str(stopped)))
        away = any(app.is_cut_off for app in self._apps.values())
        return Readiness(ready=self._serves, redis="away" if away else "ok", apps=tuple(states))

    def start(self) -> None:
        """Mark this replica as ready."""
        self._serves = True

    def leave(self) -> None:
        """Mark this replica as not ready, so that new requests go to other replicas. Waiting requests keep their
        places."""
        self._serves = False

    def refuse(self) -> None:
        """Reject queued and new requests; the replica is shutting down."""
        for app in self._apps.values():
            app.line.leave()

    async def aclose(self) -> None:
        """Wait for background work; the lines, closed before, have ended it."""
        while self._background:
            await asyncio.wait(self._background)

    def _page(self, app: ServedApp, ask: PageRequest, parts: list[Part]) -> Page:
        """Return the slice, cut from its blocks. If it continues a walk through the list, fetch the next block."""
        note = None if all(part.source is Source.HIT for part in parts) else self._note(app)
        lifetime_s = min([self._lifetimes.of(part.block) for part in parts])
        cut = page_of if ask.only.is_everything else filtered_page
        page = cut(ask, parts, block_size=app.fetching.block_size, lifetime_s=lifetime_s, budget=note)
        if self._sequential_reads is not None and ask.only.is_everything:
            following = self._sequential_reads.step(ask.caller.name, ask.query, ask.slice, total=page.total)
            if following is not None:
                self._in_background(self._fetch_ahead(app, ask.query, following))
        return page

    def _recalled(self, app: ServedApp, ask: PageRequest, index: int) -> Part | None:
        """Return a block of the page from memory, if it is fresh there. Raise QueryRefused."""
        kept = app.fetching.cache.recall(ask.query, index)
        if kept is None or self._judge(kept, ask.directives) is not Freshness.FRESH:
            return None
        return Part(block=_block(kept, ask.query), source=Source.HIT)

    async def _parts(self, app: ServedApp, ask: PageRequest) -> list[Part]:
        """Return the blocks of the slice, one or two."""
        size = app.fetching.block_size
        first, *more = ask.slice.blocks(size)
        began_s = asyncio.get_running_loop().time()
        parts = [await self._part(app, ask, first, patience_s=ask.patience_s)]
        if more and parts[0].block.total > more[0] * size:
            waited_s = asyncio.get_running_loop().time() - began_s
            parts.append(await self._part(app, ask, more[0], patience_s=max(ask.patience_s - waited_s, 0.0)))
        return parts

    async def _all_parts(self, app: ServedApp, ask: PageRequest) -> list[Part]:
        """Return all blocks of the list, for a filter. Raise RangeTooWide."""

        def recall(index: int) -> Part | None:
            part = self._recalled(app, ask, index)
            if part is not None:
                self.lookups["memory"] += 1
            return part

        return await all_blocks(
            ask,
            recall=recall,
            obtain=lambda index, patience_s: self._part(app, ask, index, patience_s=patience_s),
            is_budget_free=lambda: app.line.last is not None and app.line.last.free >= IN_FLIGHT,
            now_s=asyncio.get_running_loop().time,
            block_size=app.fetching.block_size,
        )

    async def _part(self, app: ServedApp, ask: PageRequest, index: int, *, patience_s: float) -> Part:
        """Return one block of the page: stored if possible, otherwise fetched, otherwise stale."""
        kept, place, trouble = await self._stored(app, ask, index)
        verdict = self._judge(kept, ask.directives)
        self.lookups[_LOOKUPS.get(verdict, place)] += 1
        if verdict is Freshness.FRESH:
            return Part(block=_block(kept, ask.query), source=Source.HIT)
        job = self._job(app, ask.query, index, kept, ask.directives)
        if verdict is Freshness.RENEW:
            self._renew(app, job)
            return _stale(kept, ask.query, StaleReason.RENEWING)
        if not trouble and (end := await self._end(app, ask, index)):
            return Part(block=end, source=Source.HIT)
        if ask.directives.only_if_cached:
            raise NothingStored
        if verdict is Freshness.LAST_RESORT and app.fetching.is_failing:
            self._renew(app, job)
            return _stale(kept, ask.query, StaleReason.ERROR)
        forward = self._forward(kept)
        is_stopped = app.fetching.stopped() is not None
        try:
            fetched = await self._fetch(app, ask, job, patience_s=patience_s)
        except QueryRefused:
            raise
        except (StoreUnavailable, UpstreamError, WaitTooLong, LineFull, NothingStored) as exc:
            if verdict is not Freshness.LAST_RESORT:
                raise
            waits = isinstance(exc, (WaitTooLong, LineFull, NothingStored))
            reason = StaleReason.WAIT if waits else StaleReason.ERROR
            was_called = isinstance(exc, UpstreamError) and not is_stopped
            return _stale(kept, ask.query, reason, forward=forward if was_called else None)
        return Part(
            block=_block(fetched.value, ask.query),
            source=Source.JOINED if fetched.joined else Source.FETCHED,
            forward=forward,
            waited_s=fetched.waited_s,
            upstream_s=fetched.upstream_s,
        )

    async def _stored(self, app: ServedApp, ask: PageRequest, index: int) -> tuple[CachedBlock, Lookup, bool]:
        """Return the stored block (from memory if fresh there), where it was, and whether Redis was unavailable."""
        cache = app.fetching.cache
        remembered = cache.recall(ask.query, index) or NOTHING
        if self._judge(remembered, ask.directives) is Freshness.FRESH:
            return remembered, "memory", False
        try:
            kept = await cache.get(ask.query, index)
        except StoreUnavailable:
            return remembered, "memory", True
        if kept.stored is None and remembered.stored is not None:
            return CachedBlock(stored=remembered.stored, head=kept.head), "memory", False
        return kept, "redis", False

    async def _fetch(self, app: ServedApp, ask: PageRequest, job: BlockJob, *, patience_s: float) -> Fetched:
        if stopped := app.fetching.stopped():
            raise stopped
        caller = ask.caller
        if ask.patience_s <= 0:
            raise NothingStored
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        outcome = await app.line.fetch(
            job,
            caller=caller.name,
            weight=caller.weight,
            patience_s=patience_s,
            bound=caller.waiting_max,
            origin=ask.origin,
        )
        match outcome:
            case TooLong(place=place, estimate_s=estimate_s):
                waited_s = loop.time() - began_s + ask.patience_s - patience_s
                raise WaitTooLong(place=place, estimate_s=estimate_s, patience_s=ask.patience_s, waited_s=waited_s)
            case LineIsFull(bound=bound, estimate_s=estimate_s):
                raise LineFull(bound=bound, retry_after_s=max(estimate_s, 1.0))
            case Fetched(joined=joined):
                if joined:
                    app.usage_store.count(caller.name, "joined")
                return outcome

    async def _end(self, app: ServedApp, ask: PageRequest, index: int) -> Block | None:
        """Return an empty block if a fresh block shows that the list ends before `index`."""
        if index == 0:
            return None
        try:
            kept = await app.fetching.cache.end(ask.query)
        except StoreUnavailable:
            return None
        if self._judge(kept, ask.directives) is not Freshness.FRESH or not isinstance(kept.stored, Block):
            return None
        return kept.stored if kept.stored.total <= index * app.fetching.block_size else None

    def _job(
        self, app: ServedApp, query: Query, index: int, kept: CachedBlock, directives: CacheDirectives
    ) -> BlockJob:
        def is_fresh(found: CachedBlock) -> bool:
            return self._judge(found, directives) is Freshness.FRESH

        return BlockJob(app.fetching, query, index, known=kept.head, is_fresh=is_fresh)

    def _judge(self, kept: CachedBlock, directives: CacheDirectives) -> Freshness:
        if kept.stored is None:
            return Freshness.USELESS
        return judge(kept.stored, lifetimes=self._lifetimes, directives=directives, now_ms=int(self._clock() * 1000))

    def _forward(self, kept: CachedBlock) -> Forward:
        """Return why the request must go to the upstream despite the stored block."""
        if kept.stored is None:
            return Forward.MISS
        is_fresh = self._judge(kept, _NO_DIRECTIVES) is Freshness.FRESH
        return Forward.REQUEST if is_fresh else Forward.STALE

    def _renew(self, app: ServedApp, job: BlockJob) -> None:
        """Fetch a block in the background, unless a request already waits for it or calls are stopped."""
        if not app.line.wants(job.block_key) and app.fetching.stopped() is None:
            self._in_background(self._renewed(app, job))

    async def _renewed(self, app: ServedApp, job: BlockJob) -> None:
        try:
            await app.line.fetch(
                job,
                caller=RENEWAL,
                weight=1.0,
                patience_s=RENEWAL_PATIENCE_S,
                bound=RENEWALS_MAX,
                background=True,
            )
        except TaskgateError as exc:
            log.info("renewal.failed", app=app.info.name, error=type(exc).__name__)

    async def _fetch_ahead(self, app: ServedApp, query: Query, index: int) -> None:
        """Prefetch a block with spare turns, unless a fresh one is stored."""
        cache = app.fetching.cache
        try:
            kept = cache.recall(query, index) or await cache.get(query, index)
            job = self._job(app, query, index, kept, _NO_DIRECTIVES)
            is_fresh = self._judge(kept, _NO_DIRECTIVES) is Freshness.FRESH
            if not is_fresh and not app.line.wants(job.block_key) and app.fetching.stopped() is None:
                await app.line.fetch(
                    job, caller=AHEAD, weight=1.0, patience_s=AHEAD_S, bound=AHEAD_MAX, background=True
                )
        except TaskgateError as exc:
            log.info("prefetch.failed", app=app.info.name, error=type(exc).__name__)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _note(self, app: ServedApp) -> BudgetNote | None:
        last = app.line.last
        if last is None:
            return None
        reset_s = app.window_s if last.due_in_ms is None else last.due_in_ms / 1000
        return BudgetNote(calls=app.calls_alone or app.calls, window_s=app.window_s, free=last.free, reset_s=reset_s)


_LOOKUPS: Mapping[Freshness, Lookup] = {
    Freshness.RENEW: "stale",
    Freshness.LAST_RESORT: "stale",
    Freshness.USELESS: "none",
}
_NO_DIRECTIVES = CacheDirectives()


def _block(kept: CachedBlock, query: Query) -> Block:
    """Return the block, or raise the stored refusal."""
    match kept.stored:
        case Block() as block:
            return block
        case RefusedQuery(code=code, text=text):
            raise QueryRefused(app=query.app, code=code, text=text, advice=advice_for(code))
    raise AssertionError("only what is stored is served")


def _stale(kept: CachedBlock, query: Query, reason: StaleReason, *, forward: Forward | None = None) -> Part:
    return Part(block=_block(kept, query), source=Source.STALE, stale_reason=reason, forward=forward)
