"""Calls for blocks of lists, several for one block if the upstream returns fewer records per call than it holds."""

from collections.abc import Callable
from typing import Protocol

import structlog
from msgspec.structs import replace

from service.cache.block_cache import BlockCache
from service.gateway.reported_call import ReportedCall
from service.http_client.connection import BeforeSend
from service.model.blocks import Block, BlockKey, CachedBlock, CacheKey, block_of, joined
from service.model.errors import StoreUnavailable
from service.model.queries import Query, Range
from service.model.tasks import Listing
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import CallTrace

FILL_CALLS_MAX = 16
"""The maximum number of calls for one block, if the upstream returns fewer records per call than a block holds."""
FILL_WITHIN_S = 30.0
"""How long a partial block may be completed: a block is as old as its first part."""

log = structlog.get_logger()


class ListUpstream(Protocol):
    """The upstream call; `service.upstream.client.UpstreamClient` is the real implementation."""

    async def fetch(
        self,
        app: UpstreamApp,
        query: Query,
        range_: Range,
        *,
        offset: int,
        want: int,
        before_send: BeforeSend,
        trace: CallTrace,
    ) -> Listing:
        """Return records `offset` to `offset + want` of the query. Raise UpstreamError."""
        ...


class ListCalls:
    """Implements `CallsUpstream` for one app's lists.

    `clock` is the shared clock. `short_answers` counts calls that returned fewer records than requested although the
    list continues.
    """

    def __init__(
        self,
        app: UpstreamApp,
        upstream: ListUpstream,
        cache: BlockCache,
        *,
        block_size: int,
        align_s: int,
        clock: Callable[[], float],
    ) -> None:
        self.short_answers = 0
        self.block_size = block_size
        self._app = app
        self._upstream = upstream
        self._cache = cache
        self._align_s = align_s
        self._clock = clock

    async def fetch(self, key: CacheKey, call: ReportedCall, *, seen: CachedBlock) -> Block:
        """Make one call. If the block then lacks records, it is unfinished, and the next call continues it."""
        if not isinstance(key, BlockKey):
            raise TypeError(f"no block of a list: {key}")
        begun = await self._unfinished(key, seen)
        range_ = key.query.range_at(self._clock(), align_s=self._align_s) if begun is None else begun.range
        received = 0 if begun is None else begun.received
        offset, want = key.index * self.block_size + received, self.block_size - received
        with call.made() as (before_send, trace):
            listing = await self._upstream.fetch(
                self._app,
                key.query,
                range_,
                offset=offset,
                want=want,
                before_send=before_send,
                trace=trace,
            )
        block = block_of(listing, query=key.query, range_=range_, fetched_at_ms=self._now_ms())
        if block.received < min(want, block.total - offset):
            self._note_short(want=want, got=block.received)
            block = replace(block, unfinished=block.received > 0 and call.attempt < FILL_CALLS_MAX)
        return block if begun is None else joined(begun, block)

    async def _unfinished(self, key: BlockKey, seen: CachedBlock) -> Block | None:
        """Return the part of the block that earlier calls have fetched, if it is worth continuing.

        A turn begins only if Redis has what was seen or nothing, so it is read again only if a part was seen.
        """
        kept = self._cache.recall(key)
        if kept is None and seen.is_unfinished:
            try:
                kept = await self._cache.get(key)
            except StoreUnavailable:
                return None
        block = None if kept is None else kept.stored
        if not isinstance(block, Block) or not block.unfinished or block.received >= self.block_size:
            return None
        return block if abs(self._now_ms() - block.fetched_at_ms) < FILL_WITHIN_S * 1000 else None

    def _note_short(self, *, want: int, got: int) -> None:
        """Count a call that returned fewer records than requested; log the first one."""
        self.short_answers += 1
        if self.short_answers == 1:
            advice = "set cache.block_size to the number of tasks that the upstream returns in one call"
            log.warning("upstream.short_answer", app=self._app.name, want=want, got=got, advice=advice)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)
