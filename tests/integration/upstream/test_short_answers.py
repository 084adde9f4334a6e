"""An upstream that returns fewer tasks per call than a block holds: blocks are filled by further calls."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from service.budget.line.jobs import Fetched
from service.budget.line.line import Line
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.cache.block_cache import BlockCache
from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.gateway.fetch import BlockJob, Fetching
from service.gateway.list_calls import FILL_CALLS_MAX, ListCalls
from service.model.blocks import Block, BlockKey
from service.model.errors import UpstreamTimeout
from service.model.freshness import CacheDirectives, Freshness, Lifetimes, judge
from service.model.queries import At, Query
from service.model.tasks import Listing, Task
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import CallTrace
from tests.servers import Server
from tests.tasks import bare_task

RULES = Rules(calls=5, window_ms=100, transit_ms=50, ahead_ms=10, fetch_lease_ms=1_000)
LIFETIMES = Lifetimes(fresh_s=60, settled_s=600, refusal_s=60, stale_while_revalidate_s=60, stale_if_error_s=600)
QUERY = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=1000))
APP = UpstreamApp(name="shop", sdkappid=1, admin="a", hosts=("http://upstream.invalid",))


def task(number: int) -> Task:
    """A task whose id is its place."""
    content = msgspec.Raw(b"{}")
    return bare_task(number, type="all", status="dispatched", title="t", dispatched=True, content=content)


class FewAtATime:
    """An upstream with a list of `total` that returns `most` per call; from task `ends` on it returns none."""

    def __init__(self, *, total: int = 130, most: int = 50, ends: int = 10_000) -> None:
        self.total, self.most, self.ends = total, most, ends
        self.asked: list[tuple[int, int]] = []
        self.faults: list[Exception] = []
        self.on_call: Callable[[], None] = lambda: None

    async def fetch(
        self,
        app: UpstreamApp,
        query: Query,
        range_: object,
        *,
        offset: int,
        want: int,
        before_send: Callable[[], Awaitable[None]],
        trace: CallTrace,
    ) -> Listing:
        del app, query, range_, trace
        await before_send()
        self.asked.append((offset, want))
        await asyncio.sleep(0.01)
        if self.faults:
            raise self.faults.pop(0)
        stop = min(offset + min(want, self.most), self.total, self.ends)
        listing = Listing(total=self.total, tasks=tuple(task(number) for number in range(offset, stop)))
        self.on_call()
        return listing

    def stopped(self, app: object, kind: object) -> None:
        del app, kind


class Replica:
    """The parts of one replica that fetch blocks."""

    def __init__(self, server: Server, upstream: FewAtATime, *, memory_bytes: int = 1_000_000) -> None:
        self.store = RedisStore(RedisSettings(url=server.url, timeout_s=5.0))
        blocks = RedisBlocks(self.store, prefix="t", block_size=100)
        cache = BlockCache(blocks, MemoryBlocks(max_bytes=memory_bytes, clock=time.monotonic), lifetimes=LIFETIMES)
        scheduler = RedisScheduler(self.store, prefix="t", app="shop", replica=f"r{id(self)}", rules=RULES)
        self.calls = ListCalls(APP, upstream, cache, block_size=100, align_s=1, clock=time.time)
        self.fetching = Fetching(
            app=APP,
            calls=self.calls,
            stops=upstream,
            cache=cache,
            attempts=3,
            pause_s=1,
            pause_max_s=60,
            clock=time.time,
        )
        self.line: Line = Line(scheduler, app="shop", rules=RULES)
        self.channel = scheduler.channel

    async def block(self, index: int = 0) -> Block:
        """Wait in line for a block."""
        job = BlockJob(
            self.fetching,
            BlockKey(query=QUERY, index=index),
            caller="c",
            seen=await self.fetching.cache.get(BlockKey(query=QUERY, index=index)),
            is_fresh=lambda _: True,
        )
        outcome = await self.line.fetch(job, caller="c", weight=1.0, patience_s=10.0, bound=10)
        assert isinstance(outcome, Fetched)
        assert isinstance(outcome.value.stored, Block)
        return outcome.value.stored


class Bench:
    """Replicas on one Valkey; `replica` makes one."""

    def __init__(self, server: Server, parts: AsyncExitStack) -> None:
        self._server = server
        self._parts = parts

    def replica(self, upstream: FewAtATime, **kwargs: Any) -> Replica:
        replica = Replica(self._server, upstream, **kwargs)
        self._parts.push_async_callback(replica.store.aclose)
        replica.store.listen(replica.channel, lambda message: replica.line.heard(message.decode()))
        replica.line.start()
        self._parts.push_async_callback(replica.line.aclose)
        return replica


@pytest.fixture
async def bench(valkey: Server) -> AsyncIterator[Bench]:
    """A bench with nothing stored."""
    async with AsyncExitStack() as parts:
        yield Bench(valkey, parts)


def ids(block: Block) -> list[int]:
    return [record["id"] for record in json.loads(b"[" + block.body + b"]")]


@pytest.mark.parametrize(("most", "calls"), [(50, [(0, 100), (50, 50)]), (40, [(0, 100), (40, 60), (80, 20)])])
async def test_a_block_is_filled(bench: Bench, most: int, calls: list[tuple[int, int]]) -> None:
    """Each call requests the rest; a served block holds every task once, and the first short answer is logged."""
    upstream = FewAtATime(most=most)
    replica = bench.replica(upstream)
    with capture_logs() as logs:
        block = await replica.block()
    assert ids(block) == list(range(100))
    assert (block.total, block.unfinished, block.changed) == (130, False, False)
    assert upstream.asked == calls
    assert replica.calls.short_answers == len(calls) - 1
    assert [(log["want"], log["got"]) for log in logs if log["event"] == "upstream.short_answer"] == [(100, most)]
    assert ids(await replica.block(1)) == list(range(100, 130))


async def test_the_end_of_a_list_is_not_short(bench: Bench) -> None:
    """A block that holds the rest of the list is complete with one call."""
    upstream = FewAtATime(total=30)
    assert ids(await bench.replica(upstream).block()) == list(range(30))
    assert upstream.asked == [(0, 100)]


async def test_replicas_fill_a_block_together(bench: Bench) -> None:
    """A block begun by one is continued by another, and all that wait get the whole block."""
    upstream = FewAtATime(most=25)
    replicas = [bench.replica(upstream) for _ in range(3)]
    blocks = await asyncio.gather(*(replica.block() for replica in replicas))
    assert [ids(block) for block in blocks] == [list(range(100))] * 3
    assert upstream.asked == [(0, 100), (25, 75), (50, 50), (75, 25)]


async def test_a_partial_block_is_found_in_redis(bench: Bench) -> None:
    """A partial block is found in Redis as well."""
    upstream = FewAtATime()
    assert ids(await bench.replica(upstream, memory_bytes=0).block()) == list(range(100))
    assert upstream.asked == [(0, 100), (50, 50)]


async def test_an_empty_answer_leaves_the_block_short(bench: Bench) -> None:
    """If the upstream returns nothing more, the block stays short after a bounded number of calls, and its total
    says so."""
    upstream = FewAtATime(ends=60)
    block = await bench.replica(upstream).block()
    assert (ids(block), block.total, block.unfinished) == (list(range(60)), 130, False)
    assert len(upstream.asked) == 3


async def test_calls_for_a_block_are_bounded(bench: Bench) -> None:
    """No block takes more calls than its bound."""
    upstream = FewAtATime(most=1)
    block = await bench.replica(upstream).block()
    assert ids(block) == list(range(FILL_CALLS_MAX))
    assert len(upstream.asked) == FILL_CALLS_MAX


async def test_a_change_between_two_calls_is_reported(bench: Bench) -> None:
    """The change is reported, for a task may be missing or occur twice."""
    upstream = FewAtATime()

    def grow() -> None:
        upstream.total += 1

    upstream.on_call = grow
    block = await bench.replica(upstream).block()
    assert (block.changed, block.total) == (True, 131)


async def test_a_failure_between_two_calls_keeps_the_fetched_part(bench: Bench) -> None:
    """The part already fetched is not lost, and never served."""
    upstream = FewAtATime()
    replica = bench.replica(upstream)

    def fail_next() -> None:
        if len(upstream.asked) == 1:
            upstream.faults = [UpstreamTimeout("no answer", app="shop")] * 3

    upstream.on_call = fail_next
    with pytest.raises(UpstreamTimeout):
        await replica.block()
    kept = await replica.fetching.cache.get(BlockKey(query=QUERY, index=0))
    assert isinstance(kept.stored, Block)
    assert kept.stored.unfinished
    verdict = judge(
        kept.stored,
        lifetimes=LIFETIMES,
        directives=CacheDirectives(max_stale_s=1e9, stale_if_error_s=600),
        now_ms=kept.stored.fetched_at_ms,
    )
    assert verdict is Freshness.USELESS
    upstream.faults.clear()
    assert ids(await replica.block()) == list(range(100))
    assert upstream.asked[-1] == (50, 50)
