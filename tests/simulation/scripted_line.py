"""A line in virtual time with a scheduler whose answers a test sets, and blocks whose calls it scripts."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from structlog.testing import capture_logs

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.interfaces import Beginning, Ticked, TickRequest, Wish
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.model.blocks import NOTHING, CachedBlock
from service.model.errors import StoreUnavailable, UpstreamUnreachable
from tests.queued_jobs import JobOfNothing, cached
from tests.simulation.virtual_time import run_in_virtual_time

RULES = Rules(calls=2, window_ms=1000, transit_ms=200, fetch_lease_ms=3_000)
WAY_S = 0.001


class Block(JobOfNothing):
    """A block of an upstream that takes `took_s`; `stored` is the value in Redis, `looks` the times of lookups."""

    def __init__(self, name: str = "b", *, took_s: float = 0.05, connect_s: float = 0.0) -> None:
        super().__init__(name)
        self.took_s = took_s
        self.connect_s = connect_s
        self.stored: CachedBlock = NOTHING
        self.error: Exception | None = None
        self.looks: list[float] = []
        self.calls: list[float] = []
        self.failures: list[CallFailed] = []
        self.kept = 0

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call, or fail as configured."""
        del attempt
        await asyncio.sleep(self.connect_s)
        try:
            await slot.hold()
        except UpstreamUnreachable as exc:
            return CallFailed(error=exc)
        self.calls.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.took_s)
        return self.failures.pop(0) if self.failures else cached(f"call {len(self.calls)}")

    async def keep(self) -> None:
        """Count."""
        self.kept += 1

    async def look(self) -> CachedBlock:
        """Return the stored value."""
        self.looks.append(asyncio.get_running_loop().time())
        await asyncio.sleep(WAY_S)
        if self.error is not None:
            raise self.error
        return self.stored


class Scripted(LocalScheduler):
    """A scheduler with a delay of a millisecond. The next answers to `begin` can be set, and each step can fail or
    hang."""

    def __init__(self) -> None:
        super().__init__(Policy(RULES), lambda: asyncio.get_running_loop().time() * 1000)
        self.answers: list[Beginning] = []
        self.keeps_turns = False
        self.ticks: list[float] = []
        self.begins: list[int] = []
        self.knowns: list[bytes] = []
        self.boards = 0
        self.wishes: list[Wish] = []
        self.dones: list[float] = []
        self.pauses: list[tuple[int, str]] = []
        self.lost_begins = 0
        self.lost_dones = 0
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def tick(self, request: TickRequest) -> Ticked:
        """Tick, and record when; wishes are not granted, as by a replica that shares."""
        self.ticks.append(asyncio.get_running_loop().time())
        self.boards += request.wants_board
        if request.wish is not None:
            self.wishes.append(request.wish)
        await asyncio.sleep(WAY_S)
        await self.hangs.wait()
        return await super().tick(msgspec.structs.replace(request, wish=None))

    async def begin(self, turn: int, *, block: str, known: bytes) -> Beginning:
        """Return the next answer that was set, and give the turn back; otherwise begin."""
        self.begins.append(turn)
        self.knowns.append(known)
        await asyncio.sleep(WAY_S)
        if self.answers:
            answer = self.answers.pop(0)
            if not self.keeps_turns:
                await super().done(turn, block=block, pause_ms=0, pause_reason="")
            return answer
        answer = await super().begin(turn, block=block, known=known)
        if self.lost_begins:
            self.lost_begins -= 1
            raise StoreUnavailable("timed out")
        return answer

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """End a fetch, unless that is lost."""
        self.dones.append(asyncio.get_running_loop().time())
        self.pauses.append((pause_ms, pause_reason))
        await asyncio.sleep(WAY_S)
        if self.lost_dones:
            self.lost_dones -= 1
            raise StoreUnavailable("timed out")
        await super().done(turn, block=block, pause_ms=pause_ms, pause_reason=pause_reason, took_ms=took_ms)


Scene = Callable[[Line, Scripted], Awaitable[None]]


def in_a_line(scene: Scene, *, grace_s: float = 60.0) -> None:
    """Run a scene with a line whose first quiet window is over."""

    async def run() -> None:
        scheduler = Scripted()
        line = Line(scheduler, app="shop", rules=RULES, redis_grace_s=grace_s)
        line.start()
        await asyncio.sleep(3)
        scheduler.ticks.clear()
        await scene(line, scheduler)
        scheduler.answers.clear()
        await asyncio.wait_for(line.aclose(), 60)

    with capture_logs():
        run_in_virtual_time(run)


def ask(
    line: Line, job: Block, *, patience_s: float = 10.0, caller: str = "x", bound: int = 1_000
) -> "asyncio.Task[Fetched | TooLong | LineIsFull]":
    """Request a block."""
    return asyncio.create_task(line.fetch(job, caller=caller, weight=1.0, patience_s=patience_s, bound=bound))


def now_s() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()
