"""The scheduler of `on_redis_down: share`, around a shared one that can be cut off, on the test's own clock."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from service.budget.scheduler.fallback import FallbackScheduler
from service.budget.scheduler.interfaces import (
    FIRST_WISH,
    Beginning,
    Begun,
    Board,
    Lapsed,
    Ticked,
    TickRequest,
    Turn,
    WaitingCount,
    Wish,
)
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.model.errors import StoreUnavailable

RULES = Rules(calls=4, window_ms=1000, transit_ms=500)
QUIET_S = (RULES.transit_ms + RULES.rest_ms) / 1000


class Shared(LocalScheduler):
    """Fakes the shared scheduler: can be cut off, also after a number of calls, and records its calls."""

    def __init__(self, world: "World") -> None:
        super().__init__(world.policy, lambda: world.now_s * 1000)
        self.away = False
        self.goes_after: int | None = None
        self.asked: list[str] = []

    async def tick(self, request: TickRequest) -> Ticked:
        """Tick, or fail if Redis is away."""
        self._reach("quiet tick" if request.quiet else "tick")
        return await super().tick(request)

    async def begin(self, turn: int, **asked: Any) -> Beginning:
        """Begin a turn, or fail if Redis is away."""
        self._reach("begin")
        return await super().begin(turn, **asked)

    async def done(self, turn: int, *, block: str, **said: Any) -> None:
        """End a fetch, or fail if Redis is away."""
        self._reach("done")
        await super().done(turn, block=block, **said)

    def _reach(self, what: str) -> None:
        if self.goes_after is not None and len(self.asked) >= self.goes_after:
            self.away = True
        if self.away:
            raise StoreUnavailable("unreachable")
        self.asked.append(what)


class World:
    """A replica of two that share, and its clock."""

    def __init__(
        self, *, rules: Rules = RULES, notice_s: float = 1.2, clock_s: Callable[[], float] | None = None
    ) -> None:
        self.now_s = 1000.0
        self.policy = Policy(rules)
        self.shared = Shared(self)
        self.sharing = FallbackScheduler(
            self.shared,
            app="shop",
            rules=rules,
            max_replicas=2,
            grace_s=0.5,
            notice_s=notice_s,
            clock_s=clock_s or (lambda: self.now_s),
        )

    async def tick(self, *, board: bool = False, count: int = 9) -> Ticked:
        """Tick with a caller that waits for nine blocks."""
        waiting = (WaitingCount(caller="x", weight=1.0, count=count, waited_ms=0),)
        return await self.sharing.tick(TickRequest(waiting=waiting, wants_board=board))

    async def begin(self, turn: Turn, block: str = "b") -> Beginning:
        """Begin a turn when it may be used."""
        self.now_s += turn.usable_in_ms / 1000
        return await self.sharing.begin(turn.id, block=block, known=b"")

    async def turn(self, *, within_s: float = 10.0) -> Turn:
        """The next turn, however long it takes."""
        until_s = self.now_s + within_s
        while self.now_s < until_s:
            ticked = await self.tick()
            if ticked.turns:
                return ticked.turns[0]
            self.now_s += 0.01
            if self.shared.away and self.sharing.calls_alone:
                await self.sharing.probe()
        raise AssertionError("no turn came")

    async def cut_off(self) -> None:
        """Make Redis unavailable until this replica runs on its own part."""
        self.shared.away = True
        with pytest.raises(StoreUnavailable):
            await self.tick()
        self.now_s += 0.6
        await self.tick()
        assert self.sharing.calls_alone == 2


async def test_while_redis_answers_everything_is_passed_on() -> None:
    """Ticks, begins and dones reach the shared scheduler, and none of them is made quiet."""
    world = World()
    turn = await world.turn()
    world.shared.asked.clear()
    assert await world.begin(turn) == Begun()
    await world.sharing.done(turn.id, block="b", pause_ms=0, pause_reason="")
    await world.tick()
    assert world.shared.asked == ["begin", "done", "tick"]
    assert world.sharing.calls_alone is None


async def test_before_the_grace_has_ended_redis_is_away() -> None:
    """As without `share`; and a return within the grace period costs no quiet window."""
    world = World()
    await world.turn()
    world.shared.away = True
    for _ in range(4):
        with pytest.raises(StoreUnavailable):
            await world.tick()
        world.now_s += 0.1
    world.shared.away = False
    world.shared.asked.clear()
    await world.tick()
    assert world.shared.asked == ["tick"]


async def test_alone_a_replica_keeps_to_its_part_after_a_quiet_window() -> None:
    """The first own call comes a quiet window after the switch, and no window holds more than two of the four."""
    world = World()
    await world.turn()
    await world.cut_off()
    changed_s, calls = world.now_s, []
    for number in range(8):
        turn = await world.turn()
        if await world.begin(turn, f"b{number}") == Begun():
            calls.append(world.now_s)
            await world.sharing.done(turn.id, block=f"b{number}", pause_ms=0, pause_reason="")
    assert len(calls) == 8
    assert calls[0] >= changed_s + QUIET_S - 0.001
    assert min(later - earlier for earlier, later in zip(calls, calls[2:], strict=False)) >= 1.0


async def test_a_turn_lapses_on_the_other_side() -> None:
    """A shared turn can't be begun alone, nor an own one when Redis is back, nor one that was begun before."""
    world = World()
    turn = await world.turn()
    assert await world.begin(turn) == Begun()
    await world.cut_off()
    assert await world.begin(turn) == Lapsed()
    own = await world.turn()
    assert await world.begin(own, "a") == Begun()
    world.shared.away = False
    await world.sharing.probe()
    assert world.sharing.calls_alone is None
    assert await world.begin(own, "a") == Lapsed()
    assert await world.begin(turn) == Lapsed()


async def test_a_return_takes_one_quiet_window() -> None:
    """Quiet ticks from the last possible own call until a turn that began early before it has been used, and the next
    turn a quiet window later; then as usual."""
    world = World()
    await world.turn()
    await world.cut_off()
    await world.turn()
    world.shared.away = False
    world.shared.asked.clear()
    await world.sharing.probe()
    back_s = world.now_s
    assert world.shared.asked == ["tick", "quiet tick"]
    turn = await world.turn()
    world.now_s += turn.usable_in_ms / 1000
    ahead_s = RULES.ahead_max_ms / 1000
    assert world.now_s >= back_s + ahead_s + QUIET_S - 0.001
    assert world.shared.asked.count("quiet tick") <= 3 + ahead_s / 0.01
    assert world.shared.asked[-1] == "tick"


async def test_quiet_lasts_until_the_slowest_has_detected_it() -> None:
    """If detection takes longer than a quiet window, no turn of the next side can be used before it is over."""
    world = World(rules=Rules(calls=4, window_ms=100, transit_ms=40), notice_s=1.2)
    await world.turn()
    await world.cut_off()
    alone_s = world.now_s
    await world.turn()
    assert world.now_s >= alone_s + 1.2 - 0.03
    world.shared.away = False
    await world.sharing.probe()
    back_s = world.now_s
    turn = await world.turn()
    assert world.now_s + turn.usable_in_ms / 1000 >= back_s + 1.2


async def test_a_return_that_fails_halfway_is_quiet_at_the_next() -> None:
    """Redis answers once and is unavailable again: its next answer still begins with a quiet window."""
    world = World()
    await world.turn()
    await world.cut_off()
    world.shared.away = False
    world.shared.goes_after = len(world.shared.asked) + 1
    await world.sharing.probe()
    assert world.sharing.calls_alone is None
    with pytest.raises(StoreUnavailable):
        await world.tick()
    world.shared.away, world.shared.goes_after = False, None
    world.shared.asked.clear()
    await world.tick()
    assert world.shared.asked == ["quiet tick"]


async def test_a_process_that_slept_looks_before_it_calls() -> None:
    """An own turn is not begun if Redis was last found unavailable longer ago than others may take to notice."""
    world = World(rules=msgspec.structs.replace(RULES, turn_lease_ms=5_000))
    await world.turn()
    await world.cut_off()
    own = await world.turn()
    world.now_s += 1.3
    assert await world.begin(own) == Lapsed()
    await world.sharing.probe()
    assert await world.begin(own) == Begun()


async def test_a_turn_that_may_not_begin_is_not_listed() -> None:
    """A replica that last called Redis too long ago lists its turns only after the next call: nothing is retried."""
    world = World()
    await world.turn()
    await world.cut_off()
    own = await world.turn()
    world.now_s += 1.3
    assert (await world.tick()).turns == ()
    assert await world.begin(own) == Lapsed()
    await world.sharing.probe()
    [again] = (await world.tick()).turns
    assert await world.begin(again) == Begun()


async def test_a_pause_holds_after_each_switch() -> None:
    """A pause set by the upstream before the switch, or while alone, holds on the next side."""
    world = World()
    turn = await world.turn()
    await world.begin(turn)
    await world.sharing.done(turn.id, block="b", pause_ms=9_000, pause_reason="throttled")
    await world.cut_off()
    alone = await world.tick()
    assert 8_000 < alone.pause_in_ms <= 9_000
    assert alone.pause_reason == "throttled"
    world.now_s += 20
    await world.sharing.done(1, block="b", pause_ms=5_000, pause_reason="throttled")
    world.shared.away = False
    await world.sharing.probe()
    assert 4_000 < (await world.tick()).pause_in_ms <= 5_000


async def test_the_board_estimates_waits_for_the_replicas_share() -> None:
    """An estimate that assumes all four slots gets twice the cycle, since only two of them are available."""
    world = World()
    await world.turn()
    await world.cut_off()
    board = (await world.tick(board=True)).board
    assert isinstance(board, Board)
    assert (RULES.rest_ms + board.held_ms) / RULES.calls == RULES.rest_ms / 2


async def test_a_scheduler_without_waiting_requests_watches_redis() -> None:
    """A started scheduler detects by itself that Redis is away and that it is back, and ends when closed."""
    world = World(clock_s=asyncio.get_running_loop().time)
    world.shared.away = True
    world.sharing.start()
    async with asyncio.timeout(5.0):
        while world.sharing.calls_alone is None:
            await asyncio.sleep(0.01)
        world.shared.away = False
        while world.sharing.calls_alone is not None:
            await asyncio.sleep(0.01)
    await world.sharing.aclose()


def test_each_replica_needs_a_call() -> None:
    """Four calls can't be shared among five."""
    world = World()
    with pytest.raises(ValueError, match="calls must be at least 1"):
        FallbackScheduler(world.shared, app="shop", rules=RULES, max_replicas=5, grace_s=1, notice_s=1)


async def test_a_fetch_that_began_with_a_tick_may_renew_its_slot() -> None:
    """Before its call is sent, as one that began by itself, until the side changes."""
    world = World()
    await world.turn()
    world.now_s += 2
    wish = Wish(turn=FIRST_WISH, in_use=(), caller="x", block="b", known=b"")
    waiting = (WaitingCount(caller="x", weight=1.0, count=1, waited_ms=0),)
    ticked = await world.sharing.tick(TickRequest(waiting=waiting, wish=wish))
    assert ticked.begun == Begun()
    assert await world.sharing.begin(wish.turn, block="b", known=b"") == Begun()
    await world.cut_off()
    assert await world.sharing.begin(wish.turn, block="b", known=b"") == Lapsed()


async def test_nothing_runs_after_the_end() -> None:
    """The end waits for a probe under way."""
    world = World(clock_s=asyncio.get_running_loop().time)
    before = asyncio.all_tasks()
    world.sharing.start()
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks() - before) > 0
    await world.sharing.aclose()
    assert asyncio.all_tasks() - before == set()


async def test_a_fetch_may_renew_its_slot_when_its_turn_is_listed_no_more() -> None:
    """A call that took long to connect begins once more, whatever ticks have come in between."""
    world = World()
    turn = await world.turn()
    assert await world.begin(turn) == Begun()
    assert turn.id not in {each.id for each in (await world.tick()).turns}
    assert await world.sharing.begin(turn.id, block="b", known=b"") == Begun()
