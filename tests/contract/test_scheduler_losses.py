"""Turns continue, within the limit, when a key of the scheduler is lost and when replicas have different rules."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import redis

from service.budget.scheduler.interfaces import Beginning, Begun, Scheduler, Ticked, TickRequest
from service.budget.scheduler.rules import Rules
from tests.contract.scheduler_calls import tick
from tests.contract.scheduler_world import RULES, World, row
from tests.windows import most_in_window

KEYS = ("slots", "tags", "reports", "flights", "shares", "order")
STEP_MS = 25


class Ruled:
    """A replica that always calls with the rules that the world has now, also without Redis."""

    def __init__(self, world: World, name: str) -> None:
        self.inner = world.replica(name)
        self._policy, self._rules = world.policy, world.rules

    async def tick(self, request: TickRequest) -> Ticked:
        """See `Scheduler.tick`."""
        self._policy.rules = self._rules
        return await self.inner.tick(request)

    async def begin(self, turn: int, **asked: Any) -> Beginning:
        """See `Scheduler.begin`."""
        self._policy.rules = self._rules
        return await self.inner.begin(turn, **asked)

    async def done(self, turn: int, **said: Any) -> None:
        """See `Scheduler.done`."""
        self._policy.rules = self._rules
        await self.inner.done(turn, **said)


class Backlog:
    """Replicas with a caller each that always waits for as many blocks: `begun` are the times of calls, by caller."""

    def __init__(self, world: World, replicas: Mapping[str, Scheduler], *, count: int = 50) -> None:
        self.begun: dict[str, list[float]] = {caller: [] for caller in replicas}
        self._world = world
        self._replicas = replicas
        self._count = count
        self._began_ms = world.now

    async def passes(self, time_ms: int) -> None:
        """Let replicas tick and call for a time; each call takes no time."""
        until = self._world.now + time_ms
        while self._world.now < until:
            for caller, replica in self._replicas.items():
                await self._tick(caller, replica)
            self._world.now += STEP_MS

    async def _tick(self, caller: str, replica: Scheduler) -> None:
        waited_ms = int(self._world.now - self._began_ms)
        ticked = await tick(replica, row(caller, self._count, waited_ms=waited_ms))
        for turn in ticked.turns:
            if turn.usable_in_ms:
                continue
            block = f"{caller} {turn.id}"
            if await replica.begin(turn.id, block=block, known=b"") == Begun():
                self.begun[caller].append(self._world.now)
                await replica.done(turn.id, block=block, pause_ms=0, pause_reason="")

    def worst(self) -> int:
        """Return the largest number of calls within a window."""
        return most_in_window((time for each in self.begun.values() for time in each), RULES.window_ms)

    def since(self, at_ms: float) -> dict[str, int]:
        """Return how many calls each caller has made since then."""
        return {caller: sum(time >= at_ms for time in times) for caller, times in self.begun.items()}


@pytest.mark.parametrize("key", KEYS)
async def test_a_lost_key_of_the_scheduler_costs_a_few_seconds_at_most(client: redis.Redis, key: str) -> None:
    """All callers on all replicas get turns again, although none of them has anything new to report."""
    world = World(client, RULES)
    backlog = Backlog(world, {name: world.shared(name) for name in ("a", "b", "c")})
    await backlog.passes(5_000)
    await _call_without_end(world, world.shared("d"))
    await backlog.passes(100)
    assert client.delete(f"tg:{{news}}:{key}") == 1
    lost_ms = world.now
    await backlog.passes(12_000)
    assert backlog.worst() <= RULES.calls
    again = backlog.since(lost_ms + 4_000)
    assert sum(again.values()) >= 12
    assert min(again.values()) >= 3


@pytest.mark.parametrize("key", ["tags", "reports", "order"])
async def test_a_lost_key_that_can_be_rebuilt_costs_no_quiet_window(client: redis.Redis, key: str) -> None:
    """Callers and their order are rebuilt from the other keys, and reports are requested: turns continue."""
    world = World(client, RULES)
    replicas = {name: world.shared(name) for name in ("a", "b", "c")}
    backlog = Backlog(world, replicas)
    await backlog.passes(5_000)
    assert client.delete(f"tg:{{news}}:{key}") == 1
    lost_ms = world.now
    await backlog.passes(3_000)
    assert backlog.worst() <= RULES.calls
    assert sum(backlog.since(lost_ms).values()) >= 4
    assert [replica.resets for replica in replicas.values()] == [1, 0, 0]


async def test_lost_reports_of_dead_replicas_hold_no_turns(client: redis.Redis) -> None:
    """A dead replica's report is forgotten, even if the record of its expiry is lost."""
    world = World(client, RULES)
    backlog = Backlog(world, {name: world.shared(name) for name in ("a", "b")})
    await backlog.passes(5_000)
    await tick(world.shared("dead"), row("a", 50, waited_ms=60_000), row("b", 50, waited_ms=60_000))
    assert client.delete("tg:{news}:reports") == 1
    await backlog.passes(1_000)
    lost_ms = world.now
    await backlog.passes(10_000)
    assert sum(backlog.since(lost_ms).values()) >= 14


async def test_replicas_with_other_numbers_of_calls_share_the_budget(world: World) -> None:
    """In a rollout that changes `calls`, turns continue, at the smaller number or more, but never beyond the larger."""
    replicas: dict[str, Ruled] = {}
    for name, calls in (("a", 2), ("b", 1)):
        world.rules = Rules(calls=calls, window_ms=1000, transit_ms=200, fetch_lease_ms=2000)
        replicas[name] = Ruled(world, name)
    backlog = Backlog(world, replicas)
    await backlog.passes(20_000)
    assert backlog.worst() <= 2
    served = backlog.since(10_000)
    assert sum(served.values()) >= 12
    assert min(served.values()) >= 5


@pytest.mark.parametrize("window_ms", [2_000, 3_000, 30_000])
async def test_a_rollout_that_shortens_the_window_costs_no_turns(world: World, window_ms: int) -> None:
    """Replicas with the longer window and with the shorter one get turns, at the pace of the longer one or more.

    Slots taken for the longer window are not treated as garbage, and are free once the shorter one has passed.
    """
    replicas: dict[str, Ruled] = {}
    for name, window in (("old", window_ms), ("new", RULES.window_ms)):
        world.rules = msgspec.structs.replace(RULES, window_ms=window)
        replicas[name] = Ruled(world, name)
    backlog = Backlog(world, replicas)
    await backlog.passes(window_ms + 2_000)
    began_ms = world.now
    await backlog.passes(20_000)
    served = backlog.since(began_ms)
    assert backlog.worst() <= RULES.calls
    assert min(served.values()) >= 5
    if world.client is not None:
        assert sum(getattr(each.inner, "resets", 0) for each in replicas.values()) == 1


async def _call_without_end(world: World, replica: Scheduler) -> None:
    """Let a replica begin a call and die."""
    while True:
        for turn in (await tick(replica, row("d"))).turns:
            if await replica.begin(turn.id, block="d", known=b"") == Begun():
                return
        world.now += STEP_MS


async def test_a_call_that_is_sent_after_a_loss_is_a_window_from_those_begun_after_it(world: World) -> None:
    """A call may have begun just before the loss, and be sent only when its slot would have rested."""
    replica = world.replica("a")
    await tick(replica, row("a"))
    world.now += RULES.longest_ms - RULES.ahead_ms
    turn = (await tick(replica, row("a"))).turns[0]
    begun = await replica.begin(turn.id, block="b", known=b"")
    assert begun == Begun(usable_in_ms=RULES.ahead_ms)
    sent_ms = world.now + RULES.ahead_ms
    _lose_everything(world)
    while not (turns := (await tick(replica, row("a"))).turns):
        world.now += 1
    assert world.now + turns[0].usable_in_ms >= sent_ms + RULES.transit_ms + RULES.window_ms


def _lose_everything(world: World) -> None:
    world.policy.forget()
    if world.client is not None:
        world.client.flushall()
