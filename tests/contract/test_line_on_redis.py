"""Lines of several replicas on the script: the same on one server, behind Sentinel and in a Cluster."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import msgspec
import pytest

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.model.blocks import NOTHING, CachedBlock
from service.model.errors import UpstreamUnreachable
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.queued_jobs import JobOfNothing, cached, text_of
from tests.servers import Cluster, Guarded, Server
from tests.windows import most_in_window

RULES = Rules(calls=3, window_ms=200, transit_ms=60, ahead_ms=10, fetch_lease_ms=1_000)
REPLICAS = 3


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A line and its dependencies."""

    line: Line
    store: RedisStore


class Upstream:
    """Counts calls and records their times."""

    def __init__(self) -> None:
        self.called_at_s: list[float] = []


class StoredBlock(JobOfNothing):
    """A job that stores its result in Redis, as the cache does."""

    def __init__(self, upstream: Upstream, store: RedisStore, name: str) -> None:
        super().__init__(f"t:{{shop}}:b:{name}")
        self._upstream = upstream
        self._store = store

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call."""
        try:
            await slot.hold()
        except UpstreamUnreachable as exc:  # this process was stopped for so long that the slot has expired
            return CallFailed(error=exc, again=True)
        self._upstream.called_at_s.append(time.monotonic())
        await asyncio.sleep(0.02)
        return cached(self.block_key)

    async def keep(self) -> None:
        """Store the result."""
        await self._store.put(self.block_key, self.block_key.encode(), ttl_ms=60_000)

    async def look(self) -> CachedBlock:
        """Return the stored block."""
        stored = await self._store.get(self.block_key)
        return NOTHING if stored is None else cached(stored.decode())


@pytest.fixture(params=["single", "sentinel", "cluster"])
def redis_settings(request: pytest.FixtureRequest) -> RedisSettings:
    """Redis settings for each kind of deployment."""
    fixture = {"single": "valkey", "sentinel": "valkey_sentinel", "cluster": "valkey_cluster"}[request.param]
    servers: Server | Guarded | Cluster = request.getfixturevalue(fixture)
    return RedisSettings(url=servers.url, mode=request.param, timeout_s=5.0)


@pytest.fixture
async def replicas(redis_settings: RedisSettings) -> AsyncIterator[list[Replica]]:
    """Replicas that have been running for longer than the first quiet window."""
    async with AsyncExitStack() as parts:
        made = []
        for number in range(REPLICAS):
            store = RedisStore(redis_settings)
            parts.push_async_callback(store.aclose)
            scheduler = RedisScheduler(store, prefix="t", app="shop", replica=f"r{number}", rules=RULES)
            line: Line = Line(scheduler, app="shop", rules=RULES)
            store.listen(scheduler.channel, _on_message_of(line), on_gap=line.on_message_gap)
            line.start()
            parts.push_async_callback(line.aclose)
            made.append(Replica(line=line, store=store))
        await _ask(made[0], StoredBlock(Upstream(), made[0].store, "first"))
        yield made


def _on_message_of(line: Line) -> Callable[[bytes], None]:
    return lambda message: line.heard(message.decode())


async def _ask(replica: Replica, job: StoredBlock, caller: str = "x") -> Fetched | TooLong | LineIsFull:
    return await replica.line.fetch(job, caller=caller, weight=1.0, patience_s=20, bound=1_000)


async def test_the_limit_holds_over_replicas(replicas: list[Replica]) -> None:
    """18 blocks on three replicas: never four in 200 ms, and all are fetched."""
    upstream = Upstream()
    jobs = [StoredBlock(upstream, replicas[n % REPLICAS].store, f"limit {n}") for n in range(18)]
    got = await asyncio.gather(*(_ask(replicas[n % REPLICAS], job, f"c{n % 4}") for n, job in enumerate(jobs)))
    assert [text_of(each.value) for each in got if isinstance(each, Fetched)] == [job.block_key for job in jobs]
    assert most_in_window(upstream.called_at_s, RULES.window_ms / 1000) <= RULES.calls


async def test_one_fetch_serves_all_replicas(replicas: list[Replica]) -> None:
    """90 requests for one block on three replicas: one call, and one of them has paid."""
    upstream = Upstream()
    got = await asyncio.gather(
        *(
            _ask(replicas[n % REPLICAS], StoredBlock(upstream, replicas[n % REPLICAS].store, "same"), f"c{n % 7}")
            for n in range(90)
        )
    )
    assert len(upstream.called_at_s) == 1
    assert [isinstance(each, Fetched) and each.joined for each in got].count(False) == 1


async def test_a_loss_of_all_data_costs_a_quiet_window(replicas: list[Replica]) -> None:
    """Everything is deleted in the middle of a backlog: all blocks are fetched, and never four in 200 ms."""
    upstream = Upstream()
    jobs = [StoredBlock(upstream, replicas[n % REPLICAS].store, f"lost {n}") for n in range(15)]
    asked = asyncio.gather(*(_ask(replicas[n % REPLICAS], job) for n, job in enumerate(jobs)))
    while len(upstream.called_at_s) < 5:
        await asyncio.sleep(0.005)
    await replicas[0].store.delete_matching("t:{shop}:")
    assert all(isinstance(each, Fetched) for each in await asyncio.wait_for(asked, 20))
    assert most_in_window(upstream.called_at_s, RULES.window_ms / 1000) <= RULES.calls
