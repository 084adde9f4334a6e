"""Lines on the policy itself; lines that share a policy are replicas that share a budget."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.interfaces import Beginning, Ticked, TickRequest
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.model.blocks import NOTHING, CachedBlock
from service.model.errors import StoreUnavailable, UpstreamTimeout, UpstreamUnreachable
from service.model.origin import FetchCost, Origin
from tests.queued_jobs import JobOfNothing, cached

RULES = Rules(calls=2, window_ms=100, transit_ms=40, turn_lease_ms=100, fetch_lease_ms=400, report_lease_ms=500)


class Blocks:
    """The blocks of the upstream and Redis, by name, and when each was fetched."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.stored: dict[str, str] = {}
        self.lines: list[Line] = []
        self.took_s = 0.005

    def named(self) -> list[str]:
        """The blocks that were fetched, in order."""
        return [name for name, _ in self.calls]


class BlockHere(JobOfNothing):
    """A job on `Blocks`; `ending` determines the result of a call."""

    def __init__(self, blocks: Blocks, name: str, ending: Callable[[int], str | CallFailed] | None = None) -> None:
        super().__init__(name)
        self._blocks = blocks
        self._ending = ending
        self._attempt = 0

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Record the call, and take a while."""
        try:
            await slot.hold()
        except UpstreamUnreachable as exc:
            return CallFailed(error=exc)
        self._blocks.calls.append((self.block_key, now_s()))
        await asyncio.sleep(self._blocks.took_s)
        self._attempt = attempt
        outcome = self.block_key.upper() if self._ending is None else self._ending(attempt)
        return cached(outcome) if isinstance(outcome, str) else outcome

    async def keep(self) -> None:
        """Store the result of the last call."""
        outcome = self.block_key.upper() if self._ending is None else self._ending(self._attempt)
        assert isinstance(outcome, str)
        self._blocks.stored[self.block_key] = outcome

    async def look(self) -> CachedBlock:
        """Return the stored block."""
        stored = self._blocks.stored.get(self.block_key)
        return NOTHING if stored is None else cached(stored)


class NotifyingScheduler(LocalScheduler):
    """A LocalScheduler that notifies the other lines when a fetch is done, as Redis does, and can be cut off.

    With `sees_stored` it finds stored blocks, as the script does.
    """

    def __init__(self, policy: Policy, replica: str, blocks: Blocks) -> None:
        super().__init__(policy, lambda: now_s() * 1000, replica=replica, stored=self._head_of)
        self._blocks = blocks
        self.sees_stored = False
        self.notifies = True
        self.away = False
        self.slow_s = 0.0
        self.fault: Exception | None = None
        self.begin_fault: Exception | None = None
        self.grants = True
        self.wishes = 0

    async def tick(self, request: TickRequest) -> Ticked:
        """Tick, or fail if cut off."""
        self._reach()
        self.wishes += request.wish is not None
        ticked = await super().tick(request if self.grants else msgspec.structs.replace(request, wish=None))
        await asyncio.sleep(self.slow_s)
        return ticked

    async def begin(self, turn: int, **asked: Any) -> Beginning:
        """Begin a turn, or fail if cut off."""
        self._reach()
        if self.begin_fault is not None:
            fault, self.begin_fault = self.begin_fault, None
            raise fault
        return await super().begin(turn, **asked)

    async def done(self, turn: int, *, block: str, **said: Any) -> None:
        """End a fetch, and notify the other lines."""
        self._reach()
        await super().done(turn, block=block, **said)
        for line in self._blocks.lines if self.notifies else ():
            line.heard(block)

    def _head_of(self, block_key: str) -> bytes:
        return self._blocks.stored.get(block_key, "").encode() if self.sees_stored else b""

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("unreachable")
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault


@asynccontextmanager
async def lines(
    blocks: Blocks, count: int = 1, *, rules: Rules = RULES, grace_s: float = 0.2
) -> AsyncIterator[tuple[list[Line], list[NotifyingScheduler]]]:
    """Lines of `count` replicas on one policy whose first quiet window is over."""
    before = asyncio.all_tasks()
    policy = Policy(rules)
    schedulers = [NotifyingScheduler(policy, f"r{number}", blocks) for number in range(count)]
    made: list[Line] = [Line(scheduler, app="shop", rules=rules, redis_grace_s=grace_s) for scheduler in schedulers]
    blocks.lines = made
    for line in made:
        line.start()
    while (await schedulers[0].tick(TickRequest())).free < rules.calls:
        await asyncio.sleep(0.01)
    try:
        yield made, schedulers
    finally:
        for scheduler in schedulers:
            scheduler.away = False
        await asyncio.gather(*(line.aclose() for line in made))
        assert asyncio.all_tasks() - before <= {asyncio.current_task()}


def ask(
    line: Line,
    job: BlockHere,
    *,
    caller: str = "x",
    patience_s: float = 5.0,
    bound: int = 100,
    background: bool = False,
    cost: FetchCost | None = None,
) -> "asyncio.Task[Fetched | TooLong | LineIsFull]":
    """Start a request for a block."""
    return asyncio.create_task(
        line.fetch(
            job,
            caller=caller,
            weight=1.0,
            patience_s=patience_s,
            bound=bound,
            origin=Origin(cost=cost),
            background=background,
        )
    )


def now_s() -> float:
    """Return the loop's time."""
    return asyncio.get_running_loop().time()


def failing(times: int, *, again: bool = True, stop: bool = False) -> Callable[[int], str | CallFailed]:
    """Return an `ending` that fails this many calls."""

    def ending(attempt: int) -> str | CallFailed:
        if attempt > times:
            return f"try {attempt}"
        return CallFailed(error=UpstreamTimeout("no answer", app="shop"), again=again, stop=stop)

    return ending


def ticks_of(scheduler: NotifyingScheduler) -> Callable[[], int]:
    """Count the ticks from now on."""
    tick, ticks = scheduler.tick, 0

    async def counting(request: TickRequest) -> Ticked:
        nonlocal ticks
        ticks += 1
        return await tick(request)

    scheduler.tick = counting  # type: ignore[method-assign]
    return lambda: ticks
