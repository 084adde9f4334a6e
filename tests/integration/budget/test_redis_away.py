"""Two replicas with separate lines on a real Valkey, which is killed and restarted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.fallback import FallbackScheduler, notice_s
from service.budget.scheduler.interfaces import Scheduler
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.model.blocks import CachedBlock
from service.model.errors import StoreUnavailable, UpstreamUnreachable
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.queued_jobs import JobOfNothing, cached
from tests.servers import Server, until
from tests.windows import most_in_window

RULES = Rules(calls=4, window_ms=400, transit_ms=100)
TIMEOUT_S = 0.1
Outcome = Fetched | TooLong | LineIsFull


class Fetch(JobOfNothing):
    """A job that records when it was sent and takes 10 ms; the block is never found anywhere."""

    def __init__(self, name: str, sent_s: list[float]) -> None:
        super().__init__(name)
        self._sent_s = sent_s

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Record the call."""
        try:
            await slot.hold()
        except UpstreamUnreachable as exc:
            return CallFailed(error=exc, again=True)
        self._sent_s.append(time.monotonic())
        await asyncio.sleep(0.01)
        return cached(self.block_key)


class Replica:
    """One replica's line, and a caller that always waits for three blocks there."""

    def __init__(self, name: str, url: str, sent_s: list[float], *, shares: bool) -> None:
        self.store = RedisStore(RedisSettings(url=url, timeout_s=TIMEOUT_S))
        self.shared = RedisScheduler(self.store, prefix="t", app="shop", replica=name, rules=RULES)
        self.sharing: FallbackScheduler | None = None
        scheduler: Scheduler = self.shared
        if shares:
            scheduler = self.sharing = FallbackScheduler(
                self.shared, app="shop", rules=RULES, max_replicas=2, grace_s=0.3, notice_s=notice_s(TIMEOUT_S)
            )
        self.line: Line = Line(scheduler, app="shop", rules=RULES, redis_grace_s=1.0)
        self.refused = 0
        self._name = name
        self._sent_s = sent_s
        self._wants = True

    async def live(self, stack: AsyncExitStack) -> None:
        """Open all parts, and let the caller make requests."""
        stack.push_async_callback(self.store.aclose)
        if self.sharing is not None:
            self.sharing.start()
            stack.push_async_callback(self.sharing.aclose)
        self.line.start()
        stack.push_async_callback(self.line.aclose)
        askers = [asyncio.create_task(self._ask(number)) for number in range(3)]
        stack.push_async_callback(self._leave, askers)

    async def _ask(self, asker: int) -> None:
        number = 0
        while self._wants:
            number += 1
            job = Fetch(f"t:{{shop}}:{self._name}-{asker}-{number}", self._sent_s)
            try:
                await self.line.fetch(job, caller=f"c{asker}", weight=1.0, patience_s=10.0, bound=10)
            except StoreUnavailable:
                self.refused += 1
                await asyncio.sleep(0.05)

    async def _leave(self, askers: list["asyncio.Task[None]"]) -> None:
        self._wants = False
        self.line.leave()
        await asyncio.gather(*askers, return_exceptions=True)


@asynccontextmanager
async def replicas(server: Server, sent_s: list[float], *, shares: bool) -> AsyncIterator[list[Replica]]:
    """Two replicas, each of which always has something to fetch."""
    made = [Replica(name, server.url, sent_s, shares=shares) for name in ("r1", "r2")]
    async with AsyncExitStack() as stack:
        for replica in made:
            await replica.live(stack)
        yield made


def _worst(sent_s: list[float]) -> int:
    """Return the most calls in any window; the event loop shifts the sending by up to 2 ms either way."""
    return most_in_window(sent_s, RULES.window_ms / 1000 - 0.002)


async def _more(sent_s: list[float], count: int) -> None:
    """Wait until this many more calls were sent."""
    enough = len(sent_s) + count
    await until(lambda: len(sent_s) >= enough)


@pytest.mark.parametrize("freezes", [False, True])
async def test_sharing_replicas_keep_the_limit_and_continue(own_valkey: Server, freezes: bool) -> None:
    """With Redis killed and restarted empty, or frozen and resumed with the free slots of then, no window has more than
    N calls, and calls continue, separately and shared."""
    sent_s: list[float] = []
    async with replicas(own_valkey, sent_s, shares=True) as both:
        await _more(sent_s, 8)
        (own_valkey.freeze if freezes else own_valkey.kill)()
        await until(lambda: all(each.sharing and each.sharing.calls_alone == 2 for each in both))
        await _more(sent_s, 12)
        (own_valkey.thaw if freezes else own_valkey.start)()
        await until(lambda: all(each.sharing and each.sharing.calls_alone is None for each in both))
        await _more(sent_s, 12)
    assert _worst(sent_s) <= RULES.calls


async def test_closed_replicas_make_no_call_without_redis(own_valkey: Server) -> None:
    """Waiting requests get the error, nothing is sent while Redis is unavailable, and calls resume when it is back."""
    sent_s: list[float] = []
    async with replicas(own_valkey, sent_s, shares=False) as both:
        await _more(sent_s, 8)
        own_valkey.kill()
        await until(lambda: all(each.refused > 3 for each in both))
        sent = len(sent_s)
        await asyncio.sleep(1.0)
        assert len(sent_s) == sent
        own_valkey.start()
        await _more(sent_s, 8)
    assert _worst(sent_s) <= RULES.calls
