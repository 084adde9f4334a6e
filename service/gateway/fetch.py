"""Fetches, stores and looks up the result of one upstream call; implements a line's `Job`."""

from collections.abc import Callable, Sequence
from typing import Protocol

from service.budget.line.jobs import CallFailed, HeldSlot
from service.cache.block_cache import BlockCache, NewBlock
from service.gateway.reported_call import ReportedCall
from service.model.blocks import CachedBlock, CacheKey, RefusedQuery, Stored
from service.model.calls import CallKind
from service.model.errors import (
    CallsStopped,
    QueryRefused,
    UpstreamBroken,
    UpstreamError,
    UpstreamHTTPStatus,
)
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import CallTracing, OnUpstreamCall
from service.upstream.verdicts import RetryVerdict, verdict

FAILING_S = 5.0
"""How long after a failed fetch a request that can be served stale does not wait for the next one."""
CLOCKS_APART_MS = 1_000
"""The clock difference between replicas to allow for when judging whether a fetch predates a request."""


class CallsUpstream(Protocol):
    """Calls of one kind for one app: `ListCalls` or `TaskCalls`."""

    async def fetch(self, key: CacheKey, call: ReportedCall, *, seen: CachedBlock) -> Stored:
        """Make one call within `call.made` and return what to store. Raise UpstreamError.

        `seen` is what Redis had when it was last read.
        """
        ...


class Stoppable(Protocol):
    """Knows whether an app may be called."""

    def stopped(self, app: UpstreamApp, kind: CallKind) -> CallsStopped | None:
        """Return why no such call may be made for the app now, or None."""
        ...


class Fetching:
    """Fetches by one kind of call of one app."""

    def __init__(
        self,
        *,
        app: UpstreamApp,
        kind: CallKind = CallKind.LIST,
        calls: CallsUpstream,
        stops: Stoppable,
        cache: BlockCache,
        attempts: int,
        pause_s: float,
        pause_max_s: float,
        clock: Callable[[], float],
        on_call: Sequence[OnUpstreamCall] = (),
        tracing: CallTracing | None = None,
    ) -> None:
        """`clock` is the shared clock. `on_call` are called after each upstream call, `tracing` before it."""
        self.cache = cache
        self._app = app
        self._kind = kind
        self._calls = calls
        self._stops = stops
        self._attempts = attempts
        self._pause_s = pause_s
        self._pause_max_s = pause_max_s
        self._clock = clock
        self._failed_at_s: float | None = None
        self._on_call = tuple(on_call)
        self._tracing = tracing

    def stopped(self) -> CallsStopped | None:
        """Return why no such call of the app can be made now, or None."""
        return self._stops.stopped(self._app, self._kind)

    async def fetch(self, key: CacheKey, slot: HeldSlot, *, attempt: int, seen: CachedBlock) -> NewBlock | CallFailed:
        """Make one call and keep its result in memory; a refusal of the query is kept in its place.

        If the app's blocks were dropped during the call, it has failed: later requests must not be served older data.
        """
        generation = self.cache.generation(key.app)
        call = ReportedCall(
            slot,
            app=self._app.name,
            kind=self._kind,
            attempt=attempt,
            on_call=self._on_call,
            tracing=self._tracing,
        )
        try:
            stored = await self._calls.fetch(key, call, seen=seen)
        except QueryRefused as exc:
            stored = RefusedQuery(fetched_at_ms=self.now_ms(), code=exc.code, text=exc.text)
        except UpstreamError as exc:
            return self.failed(exc, attempt=attempt)
        else:
            self._failed_at_s = None
        new = self.cache.take(key, stored, generation=generation)
        if new is None:
            error = UpstreamError("the stored blocks were dropped during the call", app=self._app.name)
            return CallFailed(error=error, again=attempt < self._attempts)
        return new

    @property
    def is_failing(self) -> bool:
        """Return whether the last fetch failed within the past few seconds, so that the next one may well fail, too."""
        return self._failed_at_s is not None and self._clock() - self._failed_at_s < FAILING_S

    def failed(self, error: UpstreamError, *, attempt: int) -> CallFailed:
        """Return the outcome of a failed fetch: whether to try again, and whether the budget must pause."""
        self._failed_at_s = self._clock()
        advised = verdict(error)
        attempts = min(2, self._attempts) if advised is RetryVerdict.ONCE_MORE else self._attempts
        pauses = advised is RetryVerdict.AFTER_PAUSE
        asked_s = error.retry_after_s if isinstance(error, UpstreamHTTPStatus) else None
        pause_s = max(self._pause_s, min(asked_s or 0.0, self._pause_max_s))
        return CallFailed(
            error=error,
            again=advised is not RetryVerdict.NEVER and attempt < attempts,
            stop=isinstance(error, CallsStopped),
            pause_s=pause_s if pauses else 0.0,
            pause_reason="throttled" if pauses else "",
        )

    def now_ms(self) -> int:
        """Return the shared clock's time, in milliseconds since the epoch."""
        return int(self._clock() * 1000)


class BlockJob:
    """Implements `Job` for one key.

    `caller` is the one whose request needs the block. `seen` is the block as the request saw it, with
    the head of the value in Redis. `is_fresh` judges by the request's directives.
    """

    def __init__(
        self,
        fetching: Fetching,
        key: CacheKey,
        *,
        caller: str,
        seen: CachedBlock,
        is_fresh: Callable[[CachedBlock], bool],
    ) -> None:
        self.block_key = fetching.cache.redis_key(key)
        self.known = seen.head
        self._caller = caller
        self._seen = seen
        self._new: NewBlock | None = None
        self._fetching = fetching
        self._key = key
        self._is_fresh = is_fresh
        self._asked_at_ms = fetching.now_ms()

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Fetch the block. A part of it is stored at once, the whole by `keep`."""
        new = await self._fetching.fetch(self._key, slot, attempt=attempt, seen=self._seen)
        if isinstance(new, CallFailed):
            return new
        self._new = new
        if new.kept.is_unfinished:
            self._seen = new.kept
            await self.keep()
            error = UpstreamBroken("the upstream returned only a part of the block", app=self._key.app)
            return CallFailed(error=error, again=True, head=new.kept.head)
        return new.kept

    async def keep(self) -> None:
        """Store the fetched block in Redis."""
        new, self._new = self._new, None
        if new is not None:
            await self._fetching.cache.store(new, caller=self._caller)

    async def look(self) -> CachedBlock:
        """Return the block as Redis has it now. Raise StoreUnavailable."""
        self._seen = await self._fetching.cache.look(self._key)
        return self._seen

    def accepts(self, found: CachedBlock) -> bool:
        """Return whether the block is new to the request, and fresh for it or fetched while it waited.

        A failover may bring back an older block than the one seen; that one answers no request.
        """
        if found.stored is None or found.is_unfinished or found.head == self.known:
            return False
        return found.stored.fetched_at_ms > self._asked_at_ms - CLOCKS_APART_MS or self._is_fresh(found)
