"""How often a line calls its scheduler in each state, and how long its waits last: in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest
from structlog.testing import capture_logs

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, TooLong
from service.budget.line.line import Line
from service.budget.scheduler.interfaces import AlreadyStored, Beginning, Joined, Lapsed, Paused, Ticked, TickRequest
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.model.blocks import CachedBlock
from service.model.errors import StoreUnavailable
from tests.queued_jobs import JobOfNothing, cached
from tests.simulation.virtual_time import run_in_virtual_time

RULES = Rules(calls=5, window_ms=1000, transit_ms=200, fetch_lease_ms=3_000)
SECONDS = 10


class Fetch(JobOfNothing):
    """A job that takes 50 ms."""

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call."""
        await slot.hold()
        await asyncio.sleep(0.05)
        return cached(self.block_key)


class Counting(LocalScheduler):
    """A scheduler with a delay of a millisecond that counts its calls.

    `error` is raised, `answer` returned by `begin`, or, if `at_once`, by a tick that gives a turn.
    """

    def __init__(self) -> None:
        super().__init__(Policy(RULES), lambda: asyncio.get_running_loop().time() * 1000)
        self.ticks = 0
        self.begins = 0
        self.error: Exception | None = None
        self.answer: Beginning | None = None
        self.at_once = False

    async def tick(self, request: TickRequest) -> Ticked:
        """Count, and fail if configured to."""
        self.ticks += 1
        await asyncio.sleep(0.001)
        if self.error is not None:
            raise self.error
        if self.answer is not None:
            ticked = await super().tick(msgspec.structs.replace(request, wish=None))
            if not self.at_once or not ticked.turns:
                return ticked
            self.begins += 1
            for turn in ticked.turns:
                await super().done(turn.id, block="b", pause_ms=0, pause_reason="")
            return msgspec.structs.replace(ticked, turns=(), begun=self.answer)
        return await super().tick(request)

    async def begin(self, turn: int, *, block: str, known: bytes) -> Beginning:
        """Count; return the configured answer, and give the turn back as the script does."""
        self.begins += 1
        await asyncio.sleep(0.001)
        if self.answer is None:
            return await super().begin(turn, block=block, known=known)
        await super().done(turn, block=block, pause_ms=0, pause_reason="")
        return self.answer


def _in_a_line(scene: Callable[[Line, Counting], Awaitable[None]]) -> None:
    async def run() -> None:
        scheduler = Counting()
        line = Line(scheduler, app="shop", rules=RULES, redis_grace_s=60.0)
        line.start()
        await asyncio.sleep(3)
        scheduler.ticks = scheduler.begins = 0
        try:
            await scene(line, scheduler)
        finally:
            scheduler.error = scheduler.answer = None
            await line.aclose()

    with capture_logs():  # printing a hundred tracebacks takes longer than the test
        run_in_virtual_time(run)


async def _ask(line: Line, name: str, *, patience_s: float) -> object:
    return await line.fetch(Fetch(name), caller="x", weight=1.0, patience_s=patience_s, bound=1_000)


def test_an_idle_line_does_not_tick() -> None:
    """Without waiting requests no tick is due."""

    async def scene(line: Line, scheduler: Counting) -> None:
        await asyncio.sleep(SECONDS)
        assert scheduler.ticks == 0
        del line

    _in_a_line(scene)


def test_a_backlog_ticks_as_turns_come() -> None:
    """A few ticks for each turn and each heartbeat, no more; they begin the fetches, too."""

    async def scene(line: Line, scheduler: Counting) -> None:
        asked = [asyncio.create_task(_ask(line, f"b{number}", patience_s=60)) for number in range(100)]
        await asyncio.sleep(SECONDS)
        assert 45 <= sum(task.done() for task in asked) <= 60
        assert scheduler.ticks <= SECONDS * (4 + 6 * RULES.calls)
        assert scheduler.begins == 0
        for task in asked:
            task.cancel()

    _in_a_line(scene)


@pytest.mark.parametrize(
    "error", [StoreUnavailable("unreachable"), ZeroDivisionError()], ids=["Redis is away", "a fault of ours"]
)
def test_a_failing_scheduler_is_called_ten_times_a_second(error: Exception) -> None:
    """Waiting requests are refused when the patience ends, and the scheduler is called no more often than that."""

    async def scene(line: Line, scheduler: Counting) -> None:
        loop = asyncio.get_running_loop()
        scheduler.error = error
        asked_s = loop.time()
        waiting = asyncio.create_task(_ask(line, "b", patience_s=SECONDS))
        assert isinstance(await waiting, TooLong)
        assert loop.time() - asked_s == pytest.approx(SECONDS, abs=0.01)
        assert SECONDS * 5 <= scheduler.ticks <= SECONDS * 11
        scheduler.ticks = 0
        await asyncio.sleep(SECONDS)
        assert scheduler.ticks <= SECONDS * 11

    _in_a_line(scene)


@pytest.mark.parametrize(
    ("answer", "at_once", "begins_most"),
    [
        (Lapsed(), False, 200 * SECONDS),
        (Paused(), False, 200 * SECONDS),
        (Joined(lease_in_ms=1_000), False, SECONDS + 2),
        (AlreadyStored(head=b"an older fetch"), False, 200 * SECONDS),
        (Joined(lease_in_ms=1_000), True, SECONDS + 2),
        (AlreadyStored(head=b"an older fetch"), True, 200 * SECONDS),
    ],
    ids=["lapsed", "paused", "joined", "stored", "joined at once", "stored at once"],
)
def test_no_answer_to_begin_leads_to_a_busy_loop(answer: Beginning, at_once: bool, begins_most: int) -> None:
    """Turns that are refused again and again are spaced, and the wait ends with the patience."""

    async def scene(line: Line, scheduler: Counting) -> None:
        loop = asyncio.get_running_loop()
        scheduler.answer, scheduler.at_once = answer, at_once
        asked_s = loop.time()
        assert isinstance(await _ask(line, "b", patience_s=SECONDS), TooLong)
        assert SECONDS <= loop.time() - asked_s < SECONDS + 1.1
        assert 2 <= scheduler.begins <= begins_most
        assert scheduler.ticks <= 200 * SECONDS
        scheduler.answer = None
        assert isinstance(await _ask(line, "b", patience_s=SECONDS), Fetched)

    _in_a_line(scene)


def test_a_wait_ends_with_the_patience_and_no_sooner() -> None:
    """If no turn comes, the request is refused when the patience ends: the timer's time, to the millisecond."""

    async def scene(line: Line, scheduler: Counting) -> None:
        loop = asyncio.get_running_loop()
        await scheduler.done(0, block="", pause_ms=8_000, pause_reason="throttled")
        asked_s = loop.time()
        outcome = await _ask(line, "b", patience_s=5.0)
        assert isinstance(outcome, TooLong)
        assert loop.time() - asked_s < 0.1, "the pause is known to outlast the patience"
        scheduler.error = StoreUnavailable("timed out")
        asked_s = loop.time()
        assert isinstance(await _ask(line, "c", patience_s=5.0), TooLong)
        assert loop.time() - asked_s < 5.01

    _in_a_line(scene)
