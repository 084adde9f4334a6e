"""What a watcher is sent, over passes of its feed, trouble, and reconnects."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from service.model.callers import Caller
from service.model.errors import (
    NotAllowed,
    RangeTooWide,
    ShuttingDown,
    TaskgateError,
    TooManyWatchers,
    UpstreamTimeout,
    WaitTooLong,
)
from service.model.pages import Source
from service.model.queries import Query
from service.model.streams import TaskFilter
from service.settings import WatchSettings
from service.watch import feed as feed_module
from service.watch.changes import TaskAdded, TaskChanged, TaskRemoved
from service.watch.events import EndEvent, IdentifiedEvent, ListedEvent, ResetEvent, StaleEvent, SyncedEvent
from service.watch.feeds import Feeds
from service.watch.version_store import VersionStore
from service.watch.watcher import Watcher
from tests.servers import until
from tests.simulation.memory_redis import MemoryRedis, MemoryStore, Network
from tests.unit.watch.lists import QUERY, Blocks, caller, record

IDLE_S = 30.0
ALL = TaskFilter()


@pytest.fixture(autouse=True)
def _quick_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RENEW_MIN_S", 0.001)
    monkeypatch.setattr(feed_module, "RETRY_MIN_S", 0.001)


class Replica:
    """Feeds over some blocks and a Redis that replicas share."""

    def __init__(self, blocks: Blocks, redis: MemoryRedis | None = None, **settings: Any) -> None:
        self.blocks = blocks
        store = MemoryStore(redis or MemoryRedis(lambda: 0.0), Network(random.Random(1), delay_s=(0.0, 0.0)))
        self.feeds = Feeds(
            blocks,
            VersionStore(store, prefix="t", keep_s=60.0),
            settings=WatchSettings(**settings),
            block_size=blocks.size,
            clock=lambda: asyncio.get_running_loop().time(),
        )

    @contextmanager
    def watch(
        self, name: str = "c0", only: TaskFilter = ALL, now: Callable[[], Caller] | None = None, query: Query = QUERY
    ) -> Any:
        """Watch as a caller."""

        def current_caller() -> Caller:
            return now() if now else caller(name)

        with self.feeds.watcher(query, only, caller=caller(name), current_caller=current_caller) as watcher:
            yield watcher


class Reading:
    """Reads events as a client does."""

    def __init__(self, watcher: Watcher, last_id: str | None = None) -> None:
        self.ids: list[str] = []
        self._batches: AsyncIterator[Any] = watcher.batches(last_id=last_id, idle_s=IDLE_S)
        self._rest: list[IdentifiedEvent] = []

    async def next(self) -> Any:
        """The next event."""
        async with asyncio.timeout(20):
            while not self._rest:
                self._rest = list(await anext(self._batches))
        each = self._rest.pop(0)
        self.ids.append(each.id)
        return each.event

    async def until(self, kind: type) -> list[Any]:
        """All events up to one of this kind, itself included."""
        events = [await self.next()]
        while not isinstance(events[-1], kind):
            events.append(await self.next())
        return events

    async def changes(self, count: int) -> list[Any]:
        """Return this many events, not counting `SyncedEvent`."""
        found: list[Any] = []
        while len(found) < count:
            event = await self.next()
            if not isinstance(event, SyncedEvent):
                found.append(event)
        return found


async def test_the_list_is_sent_first_and_then_its_changes() -> None:
    """All tasks, `synced`, and then one event for each change."""
    blocks = Blocks([record(1), record(2)])
    with Replica(blocks).watch() as watcher:
        await watcher.ready(patience_s=5)
        reading = Reading(watcher)
        *tasks, synced = await reading.until(SyncedEvent)
        assert [task.task.labels.id for task in tasks if isinstance(task, ListedEvent)] == [1, 2]
        assert (synced.count, synced.total) == (2, 2)
        blocks.records = [record(1, status="dispatched"), record(3)]
        changed, added, removed = await reading.changes(3)
        assert isinstance(changed, TaskChanged)
        assert changed.fields == ("status",)
        assert isinstance(added, TaskAdded)
        assert removed == TaskRemoved(id=2, status="pending", reason="deleted")


@pytest.mark.parametrize("seen", range(5))
async def test_a_reconnect_gets_what_changed_since_the_last_event(seen: int) -> None:
    """Cut off anywhere between four changes, a watcher continues at another replica, and gets nothing twice."""
    redis = MemoryRedis(lambda: 0.0)
    blocks = Blocks([record(1), record(2)])
    with Replica(blocks, redis).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        synced_id = reading.ids[-1]
        blocks.records = [record(1, title="u"), record(3), record(4)]
        first = await reading.changes(seen)
        last_id = reading.ids[-1] if seen else synced_id
    blocks.records = [record(1, title="u"), record(3), record(5)]
    with Replica(blocks, redis).watch() as watcher:
        again = Reading(watcher, last_id)
        rest = await again.until(SyncedEvent)
    named = [event.id if isinstance(event, TaskRemoved) else event.task.labels.id for event in (*first, *rest[:-1])]
    assert set(named) >= {1, 2, 3, 5}
    assert named.count(1) == named.count(2) == named.count(3) == 1
    assert not any(isinstance(event, (ListedEvent, ResetEvent)) for event in rest)


@pytest.mark.parametrize("last_id", ["", "x", "536349a9-0", "00000000-7ed14eeec6e0cc14", "a" * 5000])
async def test_an_unknown_id_restarts_the_watch(last_id: str) -> None:
    """An unknown id gets `reset` and the whole list; without an id, the list comes without `reset`."""
    with Replica(Blocks([record(1)])).watch() as watcher:
        events = await Reading(watcher, last_id).until(SyncedEvent)
    kinds = [type(event) for event in events]
    assert kinds == ([ResetEvent] if last_id else []) + [ListedEvent, SyncedEvent]


async def test_a_version_lost_by_redis_restarts_the_watch() -> None:
    """A reconnect to another replica restarts the watch if Redis has lost the version or is away."""
    redis = MemoryRedis(lambda: 0.0)
    with Replica(Blocks([record(1)]), redis).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
    for lose in (lambda: redis.restore({}), lambda: setattr(redis, "is_away", True)):
        lose()
        with Replica(Blocks([record(1)]), redis).watch() as watcher:
            assert isinstance(await Reading(watcher, reading.ids[-1]).next(), ResetEvent)


async def test_stale_is_sent_once_and_synced_after_recovery() -> None:
    """`stale` carries the problem and the age of the list."""
    blocks = Blocks([record(1)])
    with Replica(blocks).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        blocks.error = UpstreamTimeout("late", app="shop")
        stale = (await reading.until(StaleEvent))[-1]
        assert isinstance(stale.error, UpstreamTimeout)
        asked = len(blocks.asked)
        while len(blocks.asked) < asked + 3:
            await asyncio.sleep(0.001)
        blocks.error = None
        assert isinstance(await reading.next(), SyncedEvent), "several failed passes are one `stale`"


async def test_blocks_served_stale_are_reported_as_stale() -> None:
    """If the gateway serves stale blocks because no fetch is possible, watchers get `stale` and not `synced`."""
    blocks = Blocks([record(1)])
    with Replica(blocks).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        blocks.source = Source.STALE
        assert (await reading.until(StaleEvent))[-1].error is None


@pytest.mark.parametrize("error", [UpstreamTimeout("late", app="shop"), RangeTooWide(total=300, bound=200)])
async def test_a_failure_before_the_first_list_is_a_problem(error: TaskgateError) -> None:
    """A failure before the first list is complete is the error of the request."""
    blocks = Blocks([record(id_) for id_ in range(300)])
    blocks.error = None if isinstance(error, RangeTooWide) else error
    with Replica(blocks, blocks_max=2).watch() as watcher, pytest.raises(type(error)):
        await watcher.ready(patience_s=5)


async def test_patience_bounds_the_wait_for_the_first_list() -> None:
    """A list that is not complete in time is refused like a page."""
    blocks = Blocks([record(1)])
    blocks.before_chunk = lambda offset: None
    replica = Replica(blocks)
    with replica.watch() as watcher, pytest.raises(WaitTooLong):
        await watcher.ready(patience_s=0)


async def test_a_list_that_grows_too_long_ends_the_watch() -> None:
    """A list that outgrows the bound ends its watches, with the reason."""
    blocks = Blocks([record(1)], size=2)
    with Replica(blocks, blocks_max=1).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        blocks.records = [record(id_) for id_ in range(3)]
        assert isinstance((await reading.until(EndEvent))[-1].error, RangeTooWide)


async def test_a_list_that_has_ended_takes_no_further_watcher() -> None:
    """Until its watchers have left, new ones get the error that ended it."""
    blocks = Blocks([record(1)], size=2)
    replica = Replica(blocks, blocks_max=1)
    with replica.watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        blocks.records = [record(id_) for id_ in range(3)]
        await reading.until(EndEvent)
        with replica.watch() as late, pytest.raises(RangeTooWide):
            await late.ready(patience_s=5)


async def test_all_lists_together_are_bounded_in_bytes() -> None:
    """A list for which there is no room is refused, and its memory is released."""
    blocks = Blocks([record(id_, title="x" * 1000) for id_ in range(10)])
    replica = Replica(blocks, memory_bytes=15_000)
    with replica.watch() as watcher:
        ended = (await Reading(watcher).until(EndEvent))[-1]
        assert isinstance(ended.error, TooManyWatchers)
        assert ended.error.bound == 15_000
        with pytest.raises(TooManyWatchers):
            await watcher.ready(patience_s=5)
    assert replica.feeds.size_bytes == 0


async def test_the_caller_whose_lists_take_most_memory_loses_one() -> None:
    """The lists of the caller that uses most memory are ended, the largest first, not those of the caller that
    reaches the bound."""
    blocks = Blocks([record(id_, title="x" * 1000) for id_ in range(10)])
    replica = Replica(blocks, memory_bytes=75_000)  # three lists, of 20,000 bytes each
    queries = [structs.replace(QUERY, keyword=f"k{number}") for number in range(4)]
    with ExitStack() as stack:
        greedy = [Reading(stack.enter_context(replica.watch("greedy", query=query))) for query in queries[:3]]
        for reading in greedy:
            await reading.until(SyncedEvent)
        shared = Reading(stack.enter_context(replica.watch("modest", query=queries[0])))
        modest = Reading(stack.enter_context(replica.watch("modest", query=queries[3])))
        await shared.until(SyncedEvent)
        await modest.until(SyncedEvent)
        ended = (await greedy[1].until(EndEvent))[-1]
        assert isinstance(ended.error, TooManyWatchers)
        blocks.records = [record(1)]
        await shared.until(SyncedEvent)
        await modest.until(SyncedEvent)
        await greedy[0].until(SyncedEvent)
    assert replica.feeds.size_bytes == 0


async def test_a_slow_reader_of_an_ended_list_gets_the_rest() -> None:
    """A slow reader gets the rest of the events that were being sent, and then `end`."""
    blocks = Blocks([record(id_) for id_ in range(250)])
    replica = Replica(blocks, memory_bytes=1_000_000)
    with replica.watch() as watcher:
        batches = watcher.batches(last_id=None, idle_s=IDLE_S)
        while not (first := await anext(batches)):
            continue
        blocks.records = [record(1, title="x" * 1_000_000)]
        await until(lambda: replica.feeds.size_bytes == 0)
        events = [event.event for batch in [first, *[batch async for batch in batches]] for event in batch]
    assert sum(isinstance(event, ListedEvent) for event in events) == 250
    assert isinstance(events[-1], EndEvent)


async def test_an_unreadable_record_does_not_end_a_watch() -> None:
    """An unreadable record is logged and reported as `stale`, and the pass is repeated."""
    blocks = Blocks([record(1)])
    with Replica(blocks).watch() as watcher, capture_logs() as logs:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        blocks.records = [b"{"]
        await reading.until(StaleEvent)
        blocks.records = [record(2)]
        added, removed = await reading.changes(2)
        assert (added.task.labels.id, removed.id) == (2, 1)
    assert {each["event"] for each in logs} == {"watch.pass_failed"}


async def test_only_the_watcher_that_lost_its_right_is_ended() -> None:
    """Rights are checked at each pass; a caller that has lost its right no longer pays for turns."""
    blocks = Blocks([record(1)])
    replica = Replica(blocks)
    lost = False

    def now() -> Caller:
        if lost:
            raise NotAllowed("no more")
        return caller("leaver")

    async with AsyncExitStack() as stack:
        stays = Reading(stack.enter_context(replica.watch("stayer")))
        leaves = Reading(stack.enter_context(replica.watch("leaver", now=now)))
        await stays.until(SyncedEvent)
        await leaves.until(SyncedEvent)
        lost = True
        assert isinstance((await leaves.until(EndEvent))[-1].error, NotAllowed)
        blocks.asked.clear()
        await stays.until(SyncedEvent)
        await stays.until(SyncedEvent)
        assert "leaver" not in blocks.asked


async def test_watchers_pay_in_turns_and_share_one_loop() -> None:
    """Each pass is made once, however many watch, and the watchers take turns paying for it."""
    blocks = Blocks([record(1)])
    replica = Replica(blocks)
    async with AsyncExitStack() as stack:
        names = ("a", "b", "c")
        readings = [Reading(stack.enter_context(replica.watch(name))) for name in names]
        for reading in readings:
            await reading.until(SyncedEvent)
        blocks.asked.clear()
        while len(blocks.asked) < 9:
            await readings[0].next()
        assert {name: blocks.asked[:9].count(name) for name in names} == {"a": 3, "b": 3, "c": 3}
        assert len(replica.feeds) == 1
    assert len(replica.feeds) == replica.feeds.watchers == 0


async def test_no_block_is_fetched_after_the_last_watcher_left() -> None:
    """After the last watcher has left, no block is requested."""
    blocks = Blocks([record(1)])
    replica = Replica(blocks)
    with replica.watch() as watcher:
        await Reading(watcher).until(SyncedEvent)
    await asyncio.sleep(0)
    asked = len(blocks.asked)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(blocks.asked) == asked


async def test_a_reader_that_is_too_slow_is_reset() -> None:
    """A watcher whose last version is no longer held gets `reset`; no data is kept for it in the meantime."""
    blocks = Blocks([record(1)])
    with Replica(blocks, versions_max=2).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        for number in range(4):
            blocks.records = [record(1, title=f"v{number}")]
            asked = len(blocks.asked)
            while len(blocks.asked) < asked + 3:
                await asyncio.sleep(0.001)
        events = await reading.until(ResetEvent)
        assert not any(isinstance(event, TaskChanged) for event in events)
        assert isinstance(await reading.next(), ListedEvent)


async def test_watchers_are_bounded() -> None:
    """Watchers are bounded for each caller and for the replica; one that leaves makes room."""
    replica = Replica(Blocks([record(1)]), watchers_max=2, caller_watchers_max=1)
    with replica.watch("a"):
        with pytest.raises(TooManyWatchers) as raised, replica.watch("a"):
            pass
        assert raised.value.bound == 1
        with replica.watch("b"):
            with pytest.raises(TooManyWatchers) as raised, replica.watch("c"):
                pass
            assert raised.value.bound == 2
        with replica.watch("c"):
            pass


async def test_a_replica_that_shuts_down_ends_its_watches() -> None:
    """All watchers get `end`, and no new watch begins."""
    replica = Replica(Blocks([record(1)]))
    with replica.watch() as watcher:
        reading = Reading(watcher)
        await reading.until(SyncedEvent)
        replica.feeds.begin_drain()
        assert isinstance((await reading.until(EndEvent))[-1].error, ShuttingDown)
    with pytest.raises(ShuttingDown), replica.watch():
        pass
