"""Obtains blocks for requests: stored ones if possible, otherwise fetched ones, otherwise stale ones."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal, get_args

import structlog

from service.budget.line.jobs import Fetched, LineIsFull, TooLong
from service.gateway.fetch import BlockJob
from service.gateway.paging import Part
from service.gateway.served import ServedCall
from service.model.blocks import NOTHING, Block, BlockKey, CachedBlock, CacheKey, MissingTask, RefusedQuery
from service.model.callers import Caller
from service.model.errors import (
    CallsStopped,
    LineFull,
    NothingStored,
    QueryRefused,
    StoreUnavailable,
    TaskgateError,
    UnknownTask,
    UpstreamError,
    WaitTooLong,
)
from service.model.freshness import CacheDirectives, Freshness, Lifetimes, StaleReason, judge
from service.model.pages import Forward, RequestTerms, Source
from service.upstream.codes import advice_for

log = structlog.get_logger()

RENEWAL = "~renewal"
"""The caller name for background renewals of blocks; configured callers' names cannot contain `~`."""
RENEWAL_PATIENCE_S = 30.0
"""How long a renewal may wait; after that, the next request starts a new one."""
RENEWALS_MAX = 100
"""How many blocks of an app may wait for renewal on one replica."""
AHEAD = "~ahead"
"""The caller name for background fetches of blocks that no request needs yet."""
AHEAD_MAX = 20
AHEAD_S = 5.0
"""How long such a fetch may wait for a spare turn: after that, its caller will have requested the block itself."""


Lookup = Literal["memory", "redis", "stale", "none"]
"""Whether a fresh block was found, and where, or a stale one, or none."""
LOOKUPS: tuple[Lookup, ...] = get_args(Lookup)


class BlockSource:
    """Looks blocks up, fetches them in turns of the requesting callers, and renews stale ones in the background.

    `clock` is the shared clock, in seconds since the epoch.
    """

    def __init__(self, *, block_size: int, lifetimes: Lifetimes, clock: Callable[[], float]) -> None:
        self.lifetimes = lifetimes
        self._block_size = block_size
        self.lookups: Counter[Lookup] = Counter()
        """Counts of lookups, by result."""
        self._clock = clock
        self._background: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Wait for background work; the lines, closed before, have ended it."""
        while self._background:
            await asyncio.wait(self._background)

    def recall(self, served: ServedCall, key: CacheKey, directives: CacheDirectives) -> Part | None:
        """Return a block if memory has a fresh one; does no I/O. Callers that use it count the lookup."""
        kept = served.fetching.cache.recall(key) or NOTHING
        if self._judge(kept, directives) is not Freshness.FRESH:
            return None
        return Part(block=_block(kept, key), source=Source.HIT)

    async def part(self, served: ServedCall, terms: RequestTerms, key: CacheKey, *, patience_s: float) -> Part:
        """Return one block: stored if possible, otherwise fetched, otherwise stale; may be cancelled.

        `patience_s` is what is left of that of the terms. Raise Refused, UpstreamError or StoreUnavailable.
        """
        kept, place, trouble = await self._stored(served, terms, key)
        verdict = self._judge(kept, terms.directives)
        self.lookups[_LOOKUPS.get(verdict, place)] += 1
        if verdict is Freshness.FRESH:
            return Part(block=_block(kept, key), source=Source.HIT)
        job = self._job(served, key, kept, terms.directives, caller=terms.caller)
        if verdict is Freshness.RENEW:
            self._renew(served, job)
            return _stale(kept, key, StaleReason.RENEWING)
        if not trouble and (end := await self._end(served, terms, key)):
            return Part(block=end, source=Source.HIT)
        if terms.directives.only_if_cached:
            raise NothingStored
        if verdict is Freshness.LAST_RESORT and served.fetching.is_failing:
            self._renew(served, job)
            return _stale(kept, key, StaleReason.ERROR)
        forward = self._forward(kept)
        stopped = served.fetching.stopped()
        try:
            fetched = await self._fetch(served, terms, job, stopped=stopped, patience_s=patience_s)
        except QueryRefused:
            raise
        except (StoreUnavailable, UpstreamError, WaitTooLong, LineFull, NothingStored) as exc:
            if verdict is not Freshness.LAST_RESORT:
                raise
            waits = isinstance(exc, (WaitTooLong, LineFull, NothingStored))
            reason = StaleReason.WAIT if waits else StaleReason.ERROR
            was_called = isinstance(exc, UpstreamError) and not stopped
            return _stale(kept, key, reason, forward=forward if was_called else None)
        return Part(
            block=_block(fetched.value, key),
            source=Source.JOINED if fetched.joined else Source.FETCHED,
            forward=forward,
        )

    def fetch_ahead(self, served: ServedCall, key: CacheKey, *, caller: Caller) -> None:
        """Prefetch a block for a caller in the background with spare turns, unless a fresh one is stored."""
        self._in_background(self._fetched_ahead(served, key, caller=caller))

    async def _stored(self, served: ServedCall, terms: RequestTerms, key: CacheKey) -> tuple[CachedBlock, Lookup, bool]:
        """Return the stored block (from memory if fresh there), where it was, and whether Redis was unavailable.

        A task counts as missing only after Redis was checked: another replica may have found it since.
        """
        cache = served.fetching.cache
        remembered = cache.recall(key) or NOTHING
        is_fresh = self._judge(remembered, terms.directives) is Freshness.FRESH
        if is_fresh and not isinstance(remembered.stored, MissingTask):
            return remembered, "memory", False
        try:
            kept = await cache.get(key)
        except StoreUnavailable:
            return remembered, "memory", True
        if kept.stored is None and remembered.stored is not None:
            return CachedBlock(stored=remembered.stored, head=kept.head), "memory", False
        return kept, "redis", False

    async def _fetch(
        self, served: ServedCall, terms: RequestTerms, job: BlockJob, *, stopped: CallsStopped | None, patience_s: float
    ) -> Fetched:
        if stopped:
            raise stopped
        caller = terms.caller
        if terms.patience_s <= 0:
            raise NothingStored
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        outcome = await served.line.fetch(
            job,
            caller=caller.name,
            weight=caller.weight,
            patience_s=patience_s,
            bound=caller.waiting_max,
            origin=terms.origin,
        )
        match outcome:
            case TooLong(place=place, estimate_s=estimate_s):
                waited_s = loop.time() - began_s + terms.patience_s - patience_s
                raise WaitTooLong(place=place, estimate_s=estimate_s, patience_s=terms.patience_s, waited_s=waited_s)
            case LineIsFull(bound=bound, estimate_s=estimate_s):
                raise LineFull(bound=bound, retry_after_s=max(estimate_s, 1.0))
            case Fetched():
                if outcome.joined:
                    served.usage_store.count(caller.name, "joined")
                return outcome

    async def _end(self, served: ServedCall, terms: RequestTerms, key: CacheKey) -> Block | None:
        """Return an empty block if a fresh block shows that the list ends before this one."""
        if not isinstance(key, BlockKey) or key.index == 0:
            return None
        try:
            kept = await served.fetching.cache.end(key.query)
        except StoreUnavailable:
            return None
        if self._judge(kept, terms.directives) is not Freshness.FRESH or not isinstance(kept.stored, Block):
            return None
        return kept.stored if kept.stored.total <= key.index * self._block_size else None

    def _job(
        self, served: ServedCall, key: CacheKey, kept: CachedBlock, directives: CacheDirectives, *, caller: Caller
    ) -> BlockJob:
        def is_fresh(found: CachedBlock) -> bool:
            return self._judge(found, directives) is Freshness.FRESH

        return BlockJob(served.fetching, key, caller=caller.name, seen=kept, is_fresh=is_fresh)

    def _judge(self, kept: CachedBlock, directives: CacheDirectives) -> Freshness:
        if kept.stored is None:
            return Freshness.USELESS
        return judge(kept.stored, lifetimes=self.lifetimes, directives=directives, now_ms=int(self._clock() * 1000))

    def _forward(self, kept: CachedBlock) -> Forward:
        """Return why the request must go to the upstream despite the stored block."""
        if kept.stored is None:
            return Forward.MISS
        is_fresh = self._judge(kept, _NO_DIRECTIVES) is Freshness.FRESH
        return Forward.REQUEST if is_fresh else Forward.STALE

    def _renew(self, served: ServedCall, job: BlockJob) -> None:
        """Fetch a block in the background, unless a request already waits for it or calls are stopped."""
        if not served.line.wants(job.block_key) and served.fetching.stopped() is None:
            self._in_background(self._renewed(served, job))

    async def _renewed(self, served: ServedCall, job: BlockJob) -> None:
        try:
            await served.line.fetch(
                job,
                caller=RENEWAL,
                weight=1.0,
                patience_s=RENEWAL_PATIENCE_S,
                bound=RENEWALS_MAX,
                background=True,
            )
        except TaskgateError as exc:
            log.info("renewal.failed", app=served.app, error=type(exc).__name__)

    async def _fetched_ahead(self, served: ServedCall, key: CacheKey, *, caller: Caller) -> None:
        cache = served.fetching.cache
        try:
            kept = cache.recall(key) or await cache.get(key)
            job = self._job(served, key, kept, _NO_DIRECTIVES, caller=caller)
            is_fresh = self._judge(kept, _NO_DIRECTIVES) is Freshness.FRESH
            if not is_fresh and not served.line.wants(job.block_key) and served.fetching.stopped() is None:
                await served.line.fetch(
                    job, caller=AHEAD, weight=1.0, patience_s=AHEAD_S, bound=AHEAD_MAX, background=True
                )
        except TaskgateError as exc:
            log.info("prefetch.failed", app=served.app, error=type(exc).__name__)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


_LOOKUPS: Mapping[Freshness, Lookup] = {
    Freshness.RENEW: "stale",
    Freshness.LAST_RESORT: "stale",
    Freshness.USELESS: "none",
}
_NO_DIRECTIVES = CacheDirectives()


def _block(kept: CachedBlock, key: CacheKey) -> Block:
    """Return the block, or raise what is stored in its place."""
    match kept.stored:
        case Block() as block:
            return block
        case RefusedQuery(code=code, text=text):
            raise QueryRefused(app=key.app, code=code, text=text, advice=advice_for(code))
        case MissingTask():
            raise UnknownTask
    raise AssertionError("only stored answers are served")


def _stale(kept: CachedBlock, key: CacheKey, reason: StaleReason, *, forward: Forward | None = None) -> Part:
    return Part(block=_block(kept, key), source=Source.STALE, stale_reason=reason, forward=forward)
