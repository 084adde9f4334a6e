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
from service.model.streams import Only
from service.settings import WatchSettings
from service.watch import feed as feed_module
from service.watch.changes import Added, Changed, Removed
from service.watch.events import Ended, Identified, Listed, Reset, Stale, Synced
from service.watch.feeds import Feeds
from service.watch.version_store import VersionStore
from service.watch.watcher import Watcher
from tests.simulation.memory_redis import MemoryRedis, MemoryStore, Network
from tests.unit.watch.lists import QUERY, Blocks, caller, record

IDLE_S = 30.0
ALL = Only()


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
        self, name: str = "c0", only: Only = ALL, now: Callable[[], Caller] | None = None, query: Query = QUERY
    ) -> Any:
        """Watch as a caller."""

        async def caller_now() -> Caller:
            return now() if now else caller(name)

        with self.feeds.watcher(query, only, caller=caller(name), caller_now=caller_now) as watcher:
            yield watcher


class Reading:
    """Events as a client would get them."""

    def __init__(self, watcher: Watcher, last_id: str | None = None) -> None:
        self.ids: list[str] = []
        self._batches: AsyncIterator[Any] = watcher.batches(last_id=last_id, idle_s=IDLE_S)
        self._rest: list[Identified] = []

    async def next(self) -> Any:
        """The next event."""
        async with asyncio.timeout(10):
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
        """So many events that are not `Synced`."""
        found: list[Any] = []
        while len(found) < count:
            event = await self.next()
            if not isinstance(event, Synced):
                found.append(event)
        return found


async def test_first_the_list_then_what_changes() -> None:
    """All tasks, `synced`, and then one event for each change."""
    blocks = Blocks([record(1), record(2)])
    with Replica(blocks).watch() as watcher:
        await watcher.ready(patience_s=5)
        reading = Reading(watcher)
        *tasks, synced = await reading.until(Synced)
        assert [task.task.labels.id for task in tasks if isinstance(task, Listed)] == [1, 2]
        assert (synced.count, synced.total) == (2, 2)
        blocks.records = [record(1, status="dispatched"), record(3)]
        changed, added, removed = await reading.changes(3)
        assert isinstance(changed, Changed)
        assert changed.fields == ("status",)
        assert isinstance(added, Added)
        assert removed == Removed(id=2, status="pending", reason="deleted")


@pytest.mark.parametrize("seen", range(5))
async def test_a_reconnect_gets_what_changed_since_the_last_event(seen: int) -> None:
    """Cut off anywhere between four changes, a watcher goes on at another replica, and nothing comes twice."""
    redis = MemoryRedis(lambda: 0.0)
    blocks = Blocks([record(1), record(2)])
    with Replica(blocks, redis).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
        synced_id = reading.ids[-1]
        blocks.records = [record(1, title="u"), record(3), record(4)]
        first = await reading.changes(seen)
        last_id = reading.ids[-1] if seen else synced_id
    blocks.records = [record(1, title="u"), record(3), record(5)]
    with Replica(blocks, redis).watch() as watcher:
        again = Reading(watcher, last_id)
        rest = await again.until(Synced)
    named = [event.id if isinstance(event, Removed) else event.task.labels.id for event in (*first, *rest[:-1])]
    assert set(named) >= {1, 2, 3, 5}
    assert named.count(1) == named.count(2) == named.count(3) == 1
    assert not any(isinstance(event, (Listed, Reset)) for event in rest)


@pytest.mark.parametrize("last_id", ["", "x", "536349a9-0", "00000000-7ed14eeec6e0cc14", "a" * 5000])
async def test_an_id_that_is_not_known_begins_anew(last_id: str) -> None:
    """A whole list, told by `reset`; without an id, without it."""
    with Replica(Blocks([record(1)])).watch() as watcher:
        events = await Reading(watcher, last_id).until(Synced)
    kinds = [type(event) for event in events]
    assert kinds == ([Reset] if last_id else []) + [Listed, Synced]


async def test_a_version_that_redis_lost_begins_anew() -> None:
    """A reconnect at another replica, where Redis has forgotten or is away."""
    redis = MemoryRedis(lambda: 0.0)
    with Replica(Blocks([record(1)]), redis).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
    for lose in (lambda: redis.restore({}), lambda: setattr(redis, "is_away", True)):
        lose()
        with Replica(Blocks([record(1)]), redis).watch() as watcher:
            assert isinstance(await Reading(watcher, reading.ids[-1]).next(), Reset)


async def test_stale_comes_once_and_synced_when_it_works_again() -> None:
    """Trouble is told with what is known of it."""
    blocks = Blocks([record(1)])
    with Replica(blocks).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
        blocks.error = UpstreamTimeout("late", app="shop")
        stale = (await reading.until(Stale))[-1]
        assert isinstance(stale.error, UpstreamTimeout)
        asked = len(blocks.asked)
        while len(blocks.asked) < asked + 3:
            await asyncio.sleep(0.001)
        blocks.error = None
        assert isinstance(await reading.next(), Synced), "several failed passes are one `stale`"


async def test_blocks_served_stale_are_told_as_such() -> None:
    """The gateway may serve stale blocks where no fetch can be had; a watcher is not told that it is in step."""
    blocks = Blocks([record(1)])
    with Replica(blocks).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
        blocks.source = Source.STALE
        assert (await reading.until(Stale))[-1].error is None


@pytest.mark.parametrize("error", [UpstreamTimeout("late", app="shop"), RangeTooWide(total=300, bound=200)])
async def test_a_list_that_can_not_be_had_is_a_problem(error: TaskgateError) -> None:
    """Before the first list is known, its error is the request's."""
    blocks = Blocks([record(id_) for id_ in range(300)])
    blocks.error = None if isinstance(error, RangeTooWide) else error
    with Replica(blocks, blocks_max=2).watch() as watcher, pytest.raises(type(error)):
        await watcher.ready(patience_s=5)


async def test_patience_bounds_the_wait_for_the_first_list() -> None:
    """A list that does not come in time is refused as a page is."""
    blocks = Blocks([record(1)])
    blocks.before_chunk = lambda offset: None
    replica = Replica(blocks)
    with replica.watch() as watcher, pytest.raises(WaitTooLong):
        await watcher.ready(patience_s=0)


async def test_a_range_that_grows_too_wide_ends_the_watch() -> None:
    """With the reason."""
    blocks = Blocks([record(1)], size=2)
    with Replica(blocks, blocks_max=1).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
        blocks.records = [record(id_) for id_ in range(3)]
        assert isinstance((await reading.until(Ended))[-1].error, RangeTooWide)


async def test_a_list_that_has_ended_takes_no_further_watcher() -> None:
    """Until those who watch it have gone, whoever comes is told why."""
    blocks = Blocks([record(1)], size=2)
    replica = Replica(blocks, blocks_max=1)
    with replica.watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
        blocks.records = [record(id_) for id_ in range(3)]
        await reading.until(Ended)
        with replica.watch() as late, pytest.raises(RangeTooWide):
            await late.ready(patience_s=5)


async def test_all_lists_together_are_bounded_in_bytes() -> None:
    """A list for which there is no room is refused, and what it took is free again."""
    blocks = Blocks([record(id_, title="x" * 1000) for id_ in range(10)])
    replica = Replica(blocks, memory_bytes=15_000)
    with replica.watch() as watcher:
        ended = (await Reading(watcher).until(Ended))[-1]
        assert isinstance(ended.error, TooManyWatchers)
        assert ended.error.bound == 15_000
        with pytest.raises(TooManyWatchers):
            await watcher.ready(patience_s=5)
    assert replica.feeds.size_bytes == 0


async def test_the_caller_whose_lists_take_most_makes_room() -> None:
    """Its lists are ended, the largest first, and not those of the caller who happens to come to the bound."""
    blocks = Blocks([record(id_, title="x" * 1000) for id_ in range(10)])
    replica = Replica(blocks, memory_bytes=75_000)  # three lists, of 20,000 bytes each
    queries = [structs.replace(QUERY, keyword=f"k{number}") for number in range(4)]
    with ExitStack() as stack:
        greedy = [Reading(stack.enter_context(replica.watch("greedy", query=query))) for query in queries[:3]]
        for reading in greedy:
            await reading.until(Synced)
        shared = Reading(stack.enter_context(replica.watch("modest", query=queries[0])))
        modest = Reading(stack.enter_context(replica.watch("modest", query=queries[3])))
        await shared.until(Synced)
        await modest.until(Synced)
        ended = (await greedy[1].until(Ended))[-1]
        assert isinstance(ended.error, TooManyWatchers)
        blocks.records = [record(1)]
        await shared.until(Synced)
        await modest.until(Synced)
        await greedy[0].until(Synced)
    assert replica.feeds.size_bytes == 0


async def test_a_slow_reader_of_a_list_that_is_given_up() -> None:
    """It gets the rest of what it was being sent, and then the end."""
    blocks = Blocks([record(id_) for id_ in range(250)])
    replica = Replica(blocks)
    with replica.watch() as watcher:
        batches = watcher.batches(last_id=None, idle_s=IDLE_S)
        while not (first := await anext(batches)):
            continue
        for feed in replica.feeds._feeds.values():
            feed.give_up(TooManyWatchers(bound=1, of="bytes of lists"))
        told = [event.event for batch in [first, *[batch async for batch in batches]] for event in batch]
    assert sum(isinstance(event, Listed) for event in told) == 250
    assert isinstance(told[-1], Ended)


async def test_a_record_that_can_not_be_read_is_trouble_and_passes() -> None:
    """A fault of ours ends no watch: it is logged, told as `stale`, and tried again."""
    blocks = Blocks([record(1)])
    with Replica(blocks).watch() as watcher, capture_logs() as logs:
        reading = Reading(watcher)
        await reading.until(Synced)
        blocks.records = [b"{"]
        await reading.until(Stale)
        blocks.records = [record(2)]
        added, removed = await reading.changes(2)
        assert (added.task.labels.id, removed.id) == (2, 1)
    assert {each["event"] for each in logs} == {"watch.pass_failed"}


async def test_a_watcher_without_the_right_is_ended_and_others_go_on() -> None:
    """Rights are asked for at each pass; who lost it pays no more."""
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
        await stays.until(Synced)
        await leaves.until(Synced)
        lost = True
        assert isinstance((await leaves.until(Ended))[-1].error, NotAllowed)
        blocks.asked.clear()
        await stays.until(Synced)
        await stays.until(Synced)
        assert "leaver" not in blocks.asked


async def test_watchers_pay_in_turns_and_share_one_loop() -> None:
    """Each pass is made once, however many watch, and in everybody's turn alike."""
    blocks = Blocks([record(1)])
    replica = Replica(blocks)
    async with AsyncExitStack() as stack:
        names = ("a", "b", "c")
        readings = [Reading(stack.enter_context(replica.watch(name))) for name in names]
        for reading in readings:
            await reading.until(Synced)
        blocks.asked.clear()
        while len(blocks.asked) < 9:
            await readings[0].next()
        assert {name: blocks.asked[:9].count(name) for name in names} == {"a": 3, "b": 3, "c": 3}
        assert len(replica.feeds) == 1
    assert len(replica.feeds) == replica.feeds.watchers == 0


async def test_a_hang_up_ends_what_nobody_needs() -> None:
    """After the last watcher has gone no block is asked for."""
    blocks = Blocks([record(1)])
    replica = Replica(blocks)
    with replica.watch() as watcher:
        await Reading(watcher).until(Synced)
    await asyncio.sleep(0)
    asked = len(blocks.asked)
    for _ in range(20):
        await asyncio.sleep(0.001)
    assert len(blocks.asked) == asked


async def test_a_reader_too_slow_begins_anew() -> None:
    """Who was sent a version that the feed has forgotten is reset, and nothing is kept for it meanwhile."""
    blocks = Blocks([record(1)])
    with Replica(blocks, versions_max=2).watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
        for number in range(4):
            blocks.records = [record(1, title=f"v{number}")]
            asked = len(blocks.asked)
            while len(blocks.asked) < asked + 3:
                await asyncio.sleep(0.001)
        events = await reading.until(Reset)
        assert not any(isinstance(event, Changed) for event in events)
        assert isinstance(await reading.next(), Listed)


async def test_bounds_on_watchers() -> None:
    """Of a caller and of a replica; who leaves makes room."""
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


async def test_a_replica_that_leaves_ends_its_watches() -> None:
    """All are told, and no new one begins."""
    replica = Replica(Blocks([record(1)]))
    with replica.watch() as watcher:
        reading = Reading(watcher)
        await reading.until(Synced)
        replica.feeds.leave()
        assert isinstance((await reading.until(Ended))[-1].error, ShuttingDown)
    with pytest.raises(ShuttingDown), replica.watch():
        pass
