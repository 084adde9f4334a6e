"""The use case: serve a slice of a list, from stored blocks if possible, otherwise from the upstream."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from service.cache.purge import Purge
from service.cache.sequential_reads import SequentialReads
from service.gateway.block_source import BlockSource, Lookup
from service.gateway.filtered import IN_FLIGHT, all_blocks, filtered_page
from service.gateway.paging import Part, chunk_of, page_of
from service.gateway.served import ServedApp, ServedCall
from service.model.blocks import BlockKey, TaskKey
from service.model.budgets import BudgetView, UsageView
from service.model.callers import AppInfo, Caller
from service.model.calls import CallKind
from service.model.errors import LineFull, UnknownApp, UnknownTask, UpstreamError, WaitTooLong
from service.model.freshness import Lifetimes
from service.model.pages import AppReadiness, Chunk, FoundTask, Page, PageRequest, Readiness, Source, TaskRequest
from service.usage.app_condition import app_condition
from service.usage.budget_view import budget_view, parties
from service.usage.usage_view import is_by_hour, usage_view


class Gateway:
    """Serves pages of all apps. `clock` is the shared clock, in seconds since the epoch."""

    def __init__(
        self,
        apps: Mapping[str, ServedApp],
        *,
        block_size: int,
        lifetimes: Lifetimes,
        clock: Callable[[], float],
        purge: Purge,
        sequential_reads: SequentialReads | None,
    ) -> None:
        """With `sequential_reads`, prefetch the next block of a caller that pages in order."""
        self._apps = apps
        self._block_size = block_size
        self._purge = purge
        self._sequential_reads = sequential_reads
        self._blocks = BlockSource(block_size=block_size, lifetimes=lifetimes, clock=clock)
        self.lookups: Mapping[Lookup, int] = self._blocks.lookups
        self._serves = False

    def set_lifetimes(self, lifetimes: Lifetimes) -> None:
        """Judge stored blocks by these lifetimes from now on."""
        self._blocks.lifetimes = lifetimes

    async def page(self, request: PageRequest) -> Page:
        """Return the requested slice. Raise Refused, UpstreamError or StoreUnavailable; may be cancelled."""
        app = self._served(request.query.app)
        with _budget_in_errors(app.list):
            parts = await (self._parts(app, request) if request.only.is_everything else self._all_parts(app, request))
        return self._page(app, request, parts)

    def page_from_memory(self, request: PageRequest) -> Page | None:
        """Return the requested slice if this replica's memory holds all of it, fresh; does no I/O. Raise Refused.

        Filtered slices, which may take many blocks, are left to `page`.
        """
        app = self._served(request.query.app)
        if not request.only.is_everything:
            return None
        parts: list[Part] = []
        for index in request.slice.blocks(self._block_size):
            if parts and parts[0].block.total <= index * self._block_size:
                break
            part = self._blocks.recall(app.list, BlockKey(query=request.query, index=index), request.directives)
            if part is None:
                return None
            parts.append(part)
        self._blocks.lookups["memory"] += len(parts)
        return self._page(app, request, parts)

    async def chunk(self, request: PageRequest) -> Chunk:
        """Return the part of the requested slice that its first block holds. Raise as `page` does; may be cancelled."""
        app = self._served(request.query.app)
        size = self._block_size
        with _budget_in_errors(app.list):
            part = await self._part(app, request, request.slice.offset // size, patience_s=request.patience_s)
        note = None if part.source is Source.HIT else app.list.note()
        lifetime_s = self._blocks.lifetimes.of(part.block)
        return chunk_of(request, part, block_size=size, lifetime_s=lifetime_s, budget=note)

    async def task(self, request: TaskRequest) -> FoundTask:
        """Return one task. Raise UnknownTask, Refused, UpstreamError or StoreUnavailable; may be cancelled."""
        app = self._served(request.app)
        key = TaskKey(app=request.app, id=request.id)
        with _budget_in_errors(app.get):
            part = await self._blocks.part(app.get, request, key, patience_s=request.patience_s)
        return FoundTask(
            app=request.app,
            body=part.block.body,
            fetched_at_ms=part.block.fetched_at_ms,
            lifetime_s=self._blocks.lifetimes.of(part.block),
            source=part.source,
            stale_reason=part.stale_reason,
            forward=part.forward,
            budget=None if part.source is Source.HIT else app.get.note(),
        )

    def apps(self, caller: Caller) -> tuple[AppInfo, ...]:
        """Return the apps that the caller may read, by name."""
        return tuple(app.info for name, app in sorted(self._apps.items()) if name in caller.apps)

    async def budget(self, app: str, caller: Caller, kind: CallKind) -> BudgetView:
        """Return the app's budget for calls of this kind as visible to the caller; partial while Redis is away.

        Raise UnknownApp.
        """
        served = self._served(app, caller).of(kind)
        store = served.usage_store
        ticked, tallies, worst, recent = await asyncio.gather(
            served.line.look(), store.tallies(), store.worst(), store.recent_calls()
        )
        condition = app_condition(
            recent,
            stopped=served.fetching.stopped(),
            redis_away=served.is_cut_off,
            makes_calls=served.calls_alone is not None,
            pause_s=0.0 if ticked is None else ticked.pause_in_ms / 1000,
            pause_reason="" if ticked is None else ticked.pause_reason,
            stale_last_minute=sum(tally.minute.stale for tally in tallies.values()),
        )
        return budget_view(
            parties(ticked, served.line.waiting(), tallies),
            app=app,
            kind=kind,
            caller=caller,
            ticked=ticked,
            worst=worst,
            recent=recent,
            condition=condition,
            redis_away=served.is_cut_off,
            calls=served.calls_alone or served.calls,
            window_s=served.window_s,
        )

    async def usage(
        self, app: str, *, caller: Caller, only: str | None, since_s: int, now_s: int, kind: CallKind
    ) -> UsageView:
        """Return callers' usage of the app by requests that need calls of this kind, from `since_s` to `now_s`.

        That starts at most a week ago; `only` selects one caller. Raise UnknownApp.
        """
        served = self._served(app, caller).of(kind)
        return usage_view(
            await served.usage_store.minutes(),
            await served.usage_store.hours() if is_by_hour(since_s, now_s=now_s) else None,
            app=app,
            kind=kind,
            only=only,
            redis_away=served.is_cut_off,
            since_s=since_s,
            now_s=now_s,
        )

    async def drop(self, app: str) -> int:
        """Drop all blocks of an app on all replicas; return how many values Redis had. Raise UnknownApp,
        StoreUnavailable."""
        self._served(app)
        return await self._purge.drop(app)

    def readiness(self) -> Readiness:
        """Return what can be served now.

        Ready from `start` to `begin_drain`, even without Redis: memory may hold pages.
        """
        states = []
        for name, app in sorted(self._apps.items()):
            stopped = app.list.fetching.stopped()
            states.append(AppReadiness(name=name, ok=stopped is None, detail="" if stopped is None else str(stopped)))
        away = any(call.is_cut_off for app in self._apps.values() for call in app.calls)
        return Readiness(ready=self._serves, redis="away" if away else "ok", apps=tuple(states))

    def start(self) -> None:
        """Mark this replica as ready."""
        self._serves = True

    def begin_drain(self) -> None:
        """Mark this replica as not ready, so that new requests go to other replicas. Waiting requests keep their
        places."""
        self._serves = False

    def reject_waiting(self) -> None:
        """Reject queued and new requests; the replica is shutting down."""
        for app in self._apps.values():
            for call in app.calls:
                call.line.leave()

    async def aclose(self) -> None:
        """Wait for background work; the lines, closed before, have ended it."""
        await self._blocks.aclose()

    def _served(self, app: str, caller: Caller | None = None) -> ServedApp:
        """Return the app, which the caller may read, if given. Raise UnknownApp."""
        served = self._apps.get(app)
        if served is None or (caller is not None and app not in caller.apps):
            raise UnknownApp
        return served

    def _page(self, app: ServedApp, request: PageRequest, parts: Sequence[Part]) -> Page:
        """Return the slice, cut from its blocks, and fetch the next block if the caller pages in order."""
        note = None if all(part.source is Source.HIT for part in parts) else app.list.note()
        lifetime_s = min([self._blocks.lifetimes.of(part.block) for part in parts])
        cut = page_of if request.only.is_everything else filtered_page
        page = cut(request, parts, block_size=self._block_size, lifetime_s=lifetime_s, budget=note)
        if self._sequential_reads is not None and request.only.is_everything:
            following = self._sequential_reads.step(request.caller.name, request.query, request.slice, total=page.total)
            if following is not None:
                self._blocks.fetch_ahead(
                    app.list, BlockKey(query=request.query, index=following), caller=request.caller
                )
        return page

    async def _parts(self, app: ServedApp, request: PageRequest) -> list[Part]:
        """Return the blocks of the slice, one or two."""
        size = self._block_size
        first, *more = request.slice.blocks(size)
        began_s = asyncio.get_running_loop().time()
        parts = [await self._part(app, request, first, patience_s=request.patience_s)]
        if more and parts[0].block.total > more[0] * size:
            waited_s = asyncio.get_running_loop().time() - began_s
            parts.append(await self._part(app, request, more[0], patience_s=max(request.patience_s - waited_s, 0.0)))
        return parts

    async def _all_parts(self, app: ServedApp, request: PageRequest) -> list[Part]:
        """Return all blocks of the list, for a filter. Raise RangeTooWide."""
        line = app.list.line

        def recall(index: int) -> Part | None:
            part = self._blocks.recall(app.list, BlockKey(query=request.query, index=index), request.directives)
            if part is not None:
                self._blocks.lookups["memory"] += 1
            return part

        return await all_blocks(
            request,
            recall=recall,
            obtain=lambda index, patience_s: self._part(app, request, index, patience_s=patience_s),
            is_budget_free=lambda: line.last is not None and line.last.free >= IN_FLIGHT,
            now_s=asyncio.get_running_loop().time,
            block_size=self._block_size,
        )

    async def _part(self, app: ServedApp, request: PageRequest, index: int, *, patience_s: float) -> Part:
        """Return one block of the page."""
        key = BlockKey(query=request.query, index=index)
        return await self._blocks.part(app.list, request, key, patience_s=patience_s)


@contextmanager
def _budget_in_errors(call: ServedCall) -> Iterator[None]:
    """Add the budget as last seen to errors about a caller's wait or its call."""
    try:
        yield
    except (WaitTooLong, LineFull, UnknownTask, UpstreamError) as exc:
        exc.budget = call.note()
        raise
