"""One watched list on one replica: a single loop renews it for all its watchers, in their callers' turns."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Protocol

import msgspec
import structlog

from service.model.callers import Caller
from service.model.errors import RangeTooWide, ShuttingDown, TaskgateError
from service.model.freshness import CacheDirectives
from service.model.pages import Chunk, PageRequest, Source
from service.model.queries import Query, Slice
from service.model.streams import TaskFilter
from service.watch.assembly import AssembledList, assemble
from service.watch.changes import TaskChange, task_changes
from service.watch.version_store import VersionStore
from service.watch.versions import ListVersion

RENEW_MIN_S = 0.2
"""The minimum interval between passes over a list, in seconds, however short its blocks live."""
RETRY_MIN_S = 1.0
"""How long to wait after a failed pass, in seconds; doubled after each further one."""
RETRY_MAX_S = 15.0
CHANGES_CACHED = 64
"""How many results of `task_changes` are kept, since watchers share them."""

TASK_BYTES = 900
"""The size of a watched task in addition to its text; measured with tracemalloc."""
ENTRY_BYTES = 100
"""The size of one more version for each of its tasks, which it shares with the others."""

_NOT_STALE = CacheDirectives(max_stale_s=0.0)

log = structlog.get_logger("taskgate.watch")


class ChunkSource(Protocol):
    """The source of blocks: the gateway."""

    async def chunk(self, request: PageRequest) -> Chunk:
        """Return the part of the slice in its first block. Raise TaskgateError; may be cancelled."""
        ...


class WatchPayer(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A watch in whose caller's turn blocks may be fetched.

    `current_caller` returns the caller with its current rights, and raises if it may no longer read the list.
    """

    caller_name: str
    current_caller: Callable[[], Caller]


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """The list as currently known; `serial` increases with each pass over its blocks.

    `as_of_ms` is when the oldest of its blocks was fetched, in milliseconds since the epoch; `is_stale` says that this
    is too long ago, `error` why the last pass failed, `ended` why there will be no other.
    """

    serial: int
    version: ListVersion | None = None
    total: int = 0
    as_of_ms: int = 0
    is_stale: bool = False
    error: Exception | None = None
    ended: Exception | None = None


class Feed:
    """Renews a list as long as it has watchers. `clock` is the clock of freshness, in seconds."""

    def __init__(
        self,
        source: ChunkSource,
        store: VersionStore,
        query: Query,
        *,
        block_size: int,
        blocks_max: int,
        versions_max: int,
        make_room: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`make_room` is called after each pass: it ends lists, perhaps this one, if all of them use too much
        memory."""
        self.state = FeedState(serial=0)
        self._source = source
        self._store = store
        self._query = query
        self._block_size = block_size
        self._tasks_max = blocks_max * block_size
        self._versions_max = versions_max
        self._make_room = make_room
        self._clock = clock
        self._payers: OrderedDict[WatchPayer, None] = OrderedDict()
        self._versions: OrderedDict[str, ListVersion] = OrderedDict()
        self._changed = asyncio.Event()
        self._last: AssembledList | None = None
        self._newest_ms = 0
        self._stored_at_s = 0.0
        self._loop: asyncio.Task[None] | None = None
        self.changes = lru_cache(maxsize=CHANGES_CACHED)(self._changes)
        """The changes from one remembered version to another for watchers of some tasks."""
        self.count = lru_cache(maxsize=CHANGES_CACHED)(self._count)
        """The number of a version's tasks that match a watcher's filter."""

    def __len__(self) -> int:
        return len(self._payers)

    @property
    def size_bytes(self) -> int:
        """The approximate memory of the list and its versions."""
        current = self.state.version
        tasks = 0 if current is None else len(current.tasks) * TASK_BYTES + current.text_bytes
        return tasks + ENTRY_BYTES * sum(len(version.tasks) for version in self._versions.values())

    @property
    def callers(self) -> frozenset[str]:
        """The names of the callers that watch."""
        return frozenset(payer.caller_name for payer in self._payers)

    @contextmanager
    def watched_by(self, payer: WatchPayer) -> Iterator[None]:
        """Keep the list renewed while entered; the last watcher to leave ends any renewal in progress."""
        self._payers[payer] = None
        if self._loop is None:
            self._loop = asyncio.create_task(self._renew(), name="watch-feed")
        try:
            yield
        finally:
            del self._payers[payer]
            if not self._payers and self._loop is not None:
                self._loop.cancel()
                self._loop = None

    async def after(self, serial: int, *, timeout_s: float) -> FeedState:
        """Wait for a change since `serial`, or for the timeout; return the list as known then."""
        if self.state.serial == serial:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), timeout_s)
        return self.state

    def end(self, error: Exception) -> None:
        """End all watchers' streams."""
        self._publish(msgspec.structs.replace(self.state, ended=error))

    def drop(self, error: Exception) -> None:
        """End like `end`, at once, and release the list's memory."""
        self._versions.clear()
        self._last = None
        self.changes.cache_clear()
        self.count.cache_clear()
        self._publish(FeedState(serial=self.state.serial, ended=error))
        if self._loop is not None and self._loop is not asyncio.current_task():
            self._loop.cancel()

    def remembered(self, name: str) -> ListVersion | None:
        """Return one of the last `versions_max` versions."""
        return self._versions.get(name)

    async def find(self, name: str) -> ListVersion | None:
        """Return a version that this replica or Redis remembers."""
        return self._versions.get(name) or await self._store.get(self._query.app, name)

    async def remember(self, version: ListVersion) -> None:
        """Remember a version, here and in Redis; an already known one keeps its tasks' text."""
        is_known = version.name in self._versions
        if not is_known or version.has_records:
            self._versions[version.name] = version
        self._versions.move_to_end(version.name)
        while len(self._versions) > self._versions_max:
            self._versions.popitem(last=False)
        if not is_known or self._clock() - self._stored_at_s > self._store.keep_s / 2:
            self._stored_at_s = self._clock()
            await self._store.put(self._query.app, version)

    @staticmethod
    def _count(version: ListVersion, only: TaskFilter) -> int:
        return sum(only.takes(task.labels) for task in version.tasks.values())

    def _changes(self, before: str, after: str, only: TaskFilter) -> tuple[TaskChange, ...]:
        return task_changes(self._versions[before].tasks, self._versions[after], only)

    async def _renew(self) -> None:
        failures = 0
        while self.state.ended is None:
            try:
                chunks = await self._read_blocks()
                await self._apply(chunks)
            except RangeTooWide as exc:
                self.end(exc)
                return
            except Exception as exc:
                if not isinstance(exc, TaskgateError):
                    log.exception("watch.pass_failed", app=self._query.app)
                failures += 1
                self._publish(msgspec.structs.replace(self.state, is_stale=True, error=exc))
                await asyncio.sleep(min(RETRY_MIN_S * 2 ** (failures - 1), RETRY_MAX_S))
                continue
            failures = 0
            self._make_room()
            if self.state.ended is not None:
                return
            due_s = min(chunk.fetched_at_ms / 1000 + chunk.lifetime_s for chunk in chunks) - self._clock()
            await asyncio.sleep(max(due_s, RETRY_MIN_S if self.state.is_stale else RENEW_MIN_S))

    async def _read_blocks(self) -> list[Chunk]:
        """Read all blocks, each in the turn of the caller that is due to pay."""
        chunks: list[Chunk] = []
        offset: int | None = 0
        while offset is not None:
            caller = await self._next_payer()
            request = PageRequest(
                caller=caller,
                query=self._query,
                slice=Slice(offset=offset, limit=self._block_size),
                patience_s=caller.wait_max_s,
                directives=_NOT_STALE,
            )
            chunk = await self._source.chunk(request)
            if chunk.total > self._tasks_max:
                raise RangeTooWide(total=chunk.total, bound=self._tasks_max)
            chunks.append(chunk)
            offset = chunk.following
            await asyncio.sleep(0)
        return chunks

    async def _next_payer(self) -> Caller:
        """Return the caller whose watcher has not paid for the longest time; skip callers that have lost access."""
        refused: Exception | None = None
        for _ in range(len(self._payers)):
            payer = next(iter(self._payers))
            self._payers.move_to_end(payer)
            try:
                return payer.current_caller()
            except TaskgateError as exc:
                refused = exc
        raise refused or ShuttingDown

    async def _apply(self, chunks: list[Chunk]) -> None:
        """Apply the result of a pass."""
        newest_ms = max(chunk.fetched_at_ms for chunk in chunks)
        is_new, self._newest_ms = newest_ms > self._newest_ms, newest_ms
        self._last = assemble(chunks, query=self._query, last=self._last, is_new=is_new)
        version = self._last.version
        self.changes.cache_clear()
        self.count.cache_clear()
        await self.remember(version)
        self._publish(
            FeedState(
                serial=self.state.serial,
                version=version,
                total=chunks[-1].total,
                as_of_ms=min(chunk.fetched_at_ms for chunk in chunks),
                is_stale=any(chunk.source is Source.STALE for chunk in chunks),
                ended=self.state.ended,
            )
        )

    def _publish(self, state: FeedState) -> None:
        self.state = msgspec.structs.replace(state, serial=self.state.serial + 1)
        self._changed.set()
        self._changed = asyncio.Event()
