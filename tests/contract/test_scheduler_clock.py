"""Steps of the server's clock, idle times, and losses of data."""

import pytest
import redis

from service.budget.scheduler.interfaces import Begun, Lapsed, Scheduler, Ticked
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from tests.contract.scheduler_calls import QUIET, REST, awake, begin, done, tick
from tests.contract.scheduler_world import RULES, StoreHere, World, row


@pytest.mark.parametrize("step_ms", [-3_600_000, -500, -2, 250, 900, 10_800_000])
async def test_a_step_of_the_servers_clock_neither_frees_nor_stalls(world: World, step_ms: int) -> None:
    """A window lasts a window, whatever the server's clock says, or longer by at most the size of a real step."""
    replica = await awake(world)
    for turn in (await tick(replica, row("a", 2))).turns:
        await begin(replica, turn, f"b{turn.id}")
        await done(replica, turn, f"b{turn.id}")
    world.now += 100
    world.off += step_ms
    assert (await tick(replica)).free == 0
    world.now += RULES.window_ms - 100 - 1
    assert (await tick(replica)).free == 0
    world.now += 3 + min(RULES.clock_step_ms, 100)
    assert (await tick(replica)).free == 2


@pytest.mark.parametrize("way_ms", [None, 80], ids=["a new replica", "a replica with slow answers"])
async def test_an_unnoticed_step_back_keeps_slots_for_a_window(world: World, way_ms: int | None) -> None:
    """Slots taken on a clock that had stepped back unnoticed stay taken for a window, also for the replica that
    notices."""
    exact, other = await awake(world), world.replica("r2")

    async def ask(replica: Scheduler, count: int, *, answered_after_ms: int = 0) -> Ticked:
        world.plan(sent=world.now, at=world.now, back=world.now + answered_after_ms)
        return await tick(replica, row("b", count))

    await ask(exact, 0)
    if way_ms is not None:
        await ask(other, 0, answered_after_ms=way_ms)
    world.now += 100
    world.off -= 60
    turns = (await ask(other, 2)).turns
    assert len(turns) == 2
    for turn in turns:
        for work in (begin(other, turn, f"b{turn.id}"), done(other, turn, f"b{turn.id}")):
            world.plan(sent=world.now, at=world.now, back=world.now)
            await work
    world.now += REST - 1
    assert (await ask(exact, 0)).free == 0
    world.now += 1 + RULES.clock_step_ms
    assert (await ask(exact, 0)).free == 2


async def test_time_passes_without_script_calls(world: World) -> None:
    """A pause ends even if the script has not been called meanwhile."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    await done(replica, turn, pause_ms=60_000, reason="70050")
    world.now += 60_000
    ticked = await tick(replica, row("a"))
    assert ticked.pause_in_ms == 0
    assert [turn.usable_in_ms for turn in ticked.turns] == [0]


@pytest.mark.parametrize("loss", ["flush", "restart"])
async def test_a_loss_of_data_costs_one_quiet_window(world: World, loss: str) -> None:
    """Slots start taken; earlier readings of the server's clock do not count."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    getattr(world, loss)()
    assert await begin(replica, turn) == Lapsed()
    world.now += QUIET - 1
    assert (await tick(replica)).free == 0
    world.now += 1
    assert (await tick(replica)).free == RULES.calls


async def test_a_pause_outlives_a_failover(world: World) -> None:
    """The new server continues the pause that it knows of."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    await done(replica, turn, pause_ms=9_000, reason="60007")
    world.restart()
    ticked = await tick(replica)
    assert (ticked.pause_in_ms, ticked.pause_reason) == (9_000, "60007")


async def test_the_servers_own_clock_and_run_are_used(client: redis.Redis) -> None:
    """Without a test's clock the script itself reads TIME and the run id, and keeps nothing that grows."""
    client.flushall()
    rules = Rules(calls=3, window_ms=40, transit_ms=10, ahead_ms=0)
    replica = RedisScheduler(StoreHere(client), prefix="tg", app="news", replica="r1", rules=rules)  # type: ignore[arg-type]
    begun = 0
    for number in range(2_000):
        ticked = await tick(replica, row("a"))
        for turn in ticked.turns:
            if isinstance(await begin(replica, turn, f"b{number}"), Begun):
                begun += 1
                await done(replica, turn, f"b{number}")
        if begun >= 6:
            break
    assert begun >= 6
    await tick(replica)
    assert client.hlen("tg:{news}:flights") == 0
    assert set(client.keys()) <= {b"tg:{news}:slots", b"tg:{news}:tags", b"tg:{news}:order"}
