"""Fetches, stores and looks up one block of one query; implements a line's `Job`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec
import structlog

from service.budget.line.jobs import CallFailed, HeldSlot
from service.cache.block_cache import BlockCache, NewBlock
from service.gateway.call_events import Call, CallEnd, OnCall, Tracing, Untraced
from service.model.blocks import Block, CachedBlock, RefusedQuery, block_of, joined
from service.model.errors import (
    CallsStopped,
    QueryRefused,
    StoreUnavailable,
    UpstreamBroken,
    UpstreamError,
    UpstreamHTTPStatus,
    UpstreamRefused,
)
from service.model.queries import Query, Range
from service.model.tasks import Listing
from service.upstream.apps import UpstreamApp
from service.upstream.results import result_of
from service.upstream.verdicts import RetryVerdict, verdict

FAILING_S = 5.0
"""For how long after a failed fetch a request that can be served stale does not wait for the next fetch."""
CLOCKS_APART_MS = 1_000
"""The clock difference between replicas to allow for when judging whether a fetch predates a request."""
FILL_CALLS_MAX = 16
"""How many calls may fill one block, if the upstream returns fewer records per call than a block holds."""
FILL_WITHIN_S = 30.0
"""How long a partial block is worth completing: a block is as old as its first part."""

log = structlog.get_logger()


class Upstream(Protocol):
    """The upstream call; `service.upstream.client.Client` is the real implementation."""

    async def fetch(
        self,
        app: UpstreamApp,
        query: Query,
        range_: Range,
        *,
        offset: int,
        want: int,
        before_send: Callable[[], Awaitable[None]],
        traceparent: str,
    ) -> Listing:
        """Return records `offset` to `offset + want` of the query. Raise UpstreamError."""
        ...

    def stopped(self, app: UpstreamApp) -> CallsStopped | None:
        """Return why the app must not be called now, or None."""
        ...


class Fetching:
    """Fetches the blocks of one app."""

    def __init__(
        self,
        *,
        app: UpstreamApp,
        upstream: Upstream,
        cache: BlockCache,
        block_size: int,
        align_s: int,
        attempts: int,
        pause_s: float,
        pause_max_s: float = 60.0,
        clock: Callable[[], float],
        on_call: Sequence[OnCall] = (),
        tracing: Tracing | None = None,
    ) -> None:
        """`clock` is the shared clock. `on_call` are called after each upstream call, `tracing` before it.

        `short_answers` counts calls that returned fewer records than requested although the list continues.
        """
        self.short_answers = 0
        self.cache = cache
        self.block_size = block_size
        self._app = app
        self._upstream = upstream
        self._align_s = align_s
        self._attempts = attempts
        self._pause_s = pause_s
        self._pause_max_s = pause_max_s
        self._clock = clock
        self._failed_at_s: float | None = None
        self._on_call = tuple(on_call)
        self._tracing = tracing or Untraced()

    def stopped(self) -> CallsStopped | None:
        """Return why no block of this app can be fetched now, or None."""
        return self._upstream.stopped(self._app)

    async def fetch(
        self, query: Query, index: int, slot: HeldSlot, *, attempt: int, seen: CachedBlock
    ) -> NewBlock | None:
        """Make one call for a block and keep its result in memory; a refusal of the query is kept in its place.

        If the upstream returns fewer records per call than a block holds, the block is unfinished, and the next call
        continues it: `seen` is what Redis had when it was last read. Return None if the app's blocks were dropped
        during the call: later requests must not be served older data. Raise UpstreamError.
        """
        generation = self.cache.generation(query.app)
        begun = await self._unfinished(query, index, seen)
        range_ = query.range_at(self._clock(), align_s=self._align_s) if begun is None else begun.range
        offset = index * self.block_size + (0 if begun is None else begun.received)
        want = self.block_size - (0 if begun is None else begun.received)
        try:
            listing = await self._listing(query, range_, slot, offset=offset, want=want, attempt=attempt)
        except QueryRefused as exc:
            refusal = RefusedQuery(fetched_at_ms=self.now_ms(), code=exc.code, text=exc.text)
            return self.cache.take(query, index, refusal, generation=generation)
        self._failed_at_s = None
        block = block_of(listing, query=query, range_=range_, fetched_at_ms=self.now_ms())
        if block.received < min(want, block.total - offset):
            self._note_short(want=want, got=block.received)
            goes_on = block.received > 0 and attempt < FILL_CALLS_MAX
            block = msgspec.structs.replace(block, unfinished=goes_on)
        if begun is not None:
            block = joined(begun, block)
        return self.cache.take(query, index, block, generation=generation)

    async def _unfinished(self, query: Query, index: int, seen: CachedBlock) -> Block | None:
        """Return the part of the block that earlier calls have fetched, if it is worth continuing.

        A turn begins only if Redis still has what was seen, or nothing.
        """
        kept = self.cache.recall(query, index)
        if kept is None and is_unfinished(seen):
            try:
                kept = await self.cache.get(query, index)
            except StoreUnavailable:
                return None
        block = None if kept is None else kept.stored
        if not isinstance(block, Block) or not block.unfinished or block.received >= self.block_size:
            return None
        return block if abs(self.now_ms() - block.fetched_at_ms) < FILL_WITHIN_S * 1000 else None

    def _note_short(self, *, want: int, got: int) -> None:
        """Count a call that returned fewer records than requested; log the first one."""
        self.short_answers += 1
        if self.short_answers == 1:
            advice = "set cache.block_size to what the upstream gives in one call"
            log.warning("upstream.short_answer", app=self._app.name, want=want, got=got, advice=advice)

    def dropped(self, *, attempt: int) -> CallFailed:
        """Return the outcome of a call during which the app's blocks were dropped: make another one."""
        error = UpstreamError("the stored blocks were dropped during the call", app=self._app.name)
        return CallFailed(error=error, again=attempt < self._attempts)

    def unfinished(self, part: CachedBlock) -> CallFailed:
        """Return the outcome of a call that fetched a part of the block: make another one for the rest."""
        error = UpstreamBroken("the upstream gave a part of the block only", app=self._app.name)
        return CallFailed(error=error, again=True, head=part.head)

    async def _listing(
        self, query: Query, range_: Range, slot: HeldSlot, *, offset: int, want: int, attempt: int
    ) -> Listing:
        """Make the call and report it."""
        loop = asyncio.get_running_loop()
        call = Call(app=self._app.name, payer=slot.payer, attempt=attempt)
        trace = self._tracing.begin(call)
        begun_s, sent_at_s, error = loop.time(), None, None

        async def before_send() -> None:
            nonlocal sent_at_s
            await slot.hold()
            sent_at_s = loop.time()

        try:
            return await self._upstream.fetch(
                self._app,
                query,
                range_,
                offset=offset,
                want=want,
                before_send=before_send,
                traceparent=trace.traceparent,
            )
        except Exception as exc:
            error = exc
            raise
        finally:
            end = CallEnd(
                call=call,
                result=result_of(error),
                code=error.code if isinstance(error, UpstreamRefused) else None,
                took_s=loop.time() - begun_s,
                sent_at_s=sent_at_s,
            )
            trace.end(end)
            for tell in self._on_call:
                tell(end)

    @property
    def is_failing(self) -> bool:
        """Return whether the last fetch failed within the past few seconds, so that the next one may well fail, too."""
        return self._failed_at_s is not None and self._clock() - self._failed_at_s < FAILING_S

    def failed(self, error: UpstreamError, *, attempt: int) -> CallFailed:
        """Return the outcome of a failed fetch: whether to try again, and whether the budget must pause."""
        self._failed_at_s = self._clock()
        advised = verdict(error)
        again = {
            RetryVerdict.AGAIN: attempt < self._attempts,
            RetryVerdict.ONCE_MORE: attempt < min(2, self._attempts),
            RetryVerdict.AFTER_PAUSE: attempt < self._attempts,
            RetryVerdict.NEVER: False,
        }[advised]
        pauses = advised is RetryVerdict.AFTER_PAUSE
        asked_s = error.retry_after_s if isinstance(error, UpstreamHTTPStatus) else None
        pause_s = max(self._pause_s, min(asked_s or 0.0, self._pause_max_s))
        return CallFailed(
            error=error,
            again=again,
            stop=isinstance(error, CallsStopped),
            pause_s=pause_s if pauses else 0.0,
            pause_reason="throttled" if pauses else "",
        )

    def now_ms(self) -> int:
        """Return the shared clock's time, in milliseconds since the epoch."""
        return int(self._clock() * 1000)


class BlockJob:
    """Implements `Job` for one block of a query.

    `seen` is the block as the request has seen it, with the head of the value in Redis. `is_fresh` judges by the
    request's directives.
    """

    def __init__(
        self,
        fetching: Fetching,
        query: Query,
        index: int,
        *,
        seen: CachedBlock,
        is_fresh: Callable[[CachedBlock], bool],
    ) -> None:
        self.block_key = fetching.cache.key(query, index)
        self.known = seen.head
        self._seen = seen
        self._new: NewBlock | None = None
        self._fetching = fetching
        self._query = query
        self._index = index
        self._is_fresh = is_fresh
        self._asked_at_ms = fetching.now_ms()

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Fetch the block. A part of it is stored at once, the whole by `keep`."""
        try:
            new = await self._fetching.fetch(self._query, self._index, slot, attempt=attempt, seen=self._seen)
        except UpstreamError as exc:
            return self._fetching.failed(exc, attempt=attempt)
        if new is None:
            return self._fetching.dropped(attempt=attempt)
        self._new = new
        if is_unfinished(new.kept):
            self._seen = new.kept
            await self.keep()
            return self._fetching.unfinished(new.kept)
        return new.kept

    async def keep(self) -> None:
        """Store the fetched block in Redis."""
        new, self._new = self._new, None
        if new is not None:
            await self._fetching.cache.store(new)

    async def look(self) -> CachedBlock:
        """Return the block as Redis has it now. Raise StoreUnavailable."""
        self._seen = await self._fetching.cache.look(self._query, self._index)
        return self._seen

    def accepts(self, found: CachedBlock) -> bool:
        """Return whether the block is new to the request, and fresh for it or fetched while it waited.

        A failover may bring back an older block than the one seen; that one answers no request.
        """
        if found.stored is None or is_unfinished(found) or found.head == self.known:
            return False
        return found.stored.fetched_at_ms > self._asked_at_ms - CLOCKS_APART_MS or self._is_fresh(found)


def is_unfinished(kept: CachedBlock) -> bool:
    """Return whether the upstream has given only a part of the block so far."""
    return isinstance(kept.stored, Block) and kept.stored.unfinished
