"""The order of callers that the script keeps: what it saves, and when it is rebuilt."""

from typing import Any

import msgspec
import pytest
import redis

from service.budget.scheduler.interfaces import Scheduler
from tests.contract.scheduler_calls import QUIET, awake, tick
from tests.contract.scheduler_world import RULES, World, row

STATE, CALLERS, REPORTS, ORDER = ("tg:{news}:" + name for name in ("slots", "tags", "reports", "order"))
SUMS = 12
"""Positions of the sums in the state: blocks, urgent ones, callers, reports, and when everything is rebuilt."""


@pytest.fixture
def world(client: redis.Redis) -> World:
    """An empty Redis."""
    return World(client)


def commands(client: redis.Redis) -> int:
    """Return how many commands the server has run, those of scripts included."""
    stats: Any = client.info("commandstats")
    return sum(each["calls"] for each in stats.values())


def state_of(client: redis.Redis) -> list[Any]:
    packed: Any = client.get(STATE)
    return list(msgspec.msgpack.decode(packed))


async def board(replica: Scheduler, *rows: object) -> list[tuple[str, int]]:
    """Tick, and return the waiting callers with their counts, in order."""
    ticked = await tick(replica, *rows, board=True)
    assert ticked.board is not None
    return [(rank.caller, rank.count) for rank in ticked.board.ranks]


async def test_a_turn_costs_as_much_with_ten_callers_as_with_a_thousand(world: World, client: redis.Redis) -> None:
    """A tick that gives a turn reads only the next callers, new and known ones, however many wait."""
    costs = []
    for number in (10, 1_000):
        client.flushall()
        replica = await awake(world)
        for passed_ms in (0, RULES.gap_ms):
            world.now += passed_ms
            before = commands(client)
            rows = [row(f"c{each:04}", 2, waited_ms=5_000 + passed_ms - each) for each in range(number)]
            assert len((await tick(replica, *rows)).turns) == 1
        costs.append(commands(client) - before)
    assert costs[1] <= costs[0] <= 40


@pytest.mark.parametrize("lost", ["the sums", "the order", "a place", "the callers", "the reports"])
async def test_lost_data_is_rebuilt(world: World, client: redis.Redis, lost: str) -> None:
    """If a caller's place, the sums (an older release drops them) or the callers are lost, the next look rebuilds
    them."""
    replica = await awake(world)
    rows = [row(f"c{number}", number, waited_ms=100 + number) for number in range(1, 8)]
    expected = await board(replica, *rows)
    if lost == "the sums":
        client.set(STATE, msgspec.msgpack.encode(state_of(client)[:SUMS]))
        client.zadd(ORDER, {"1 a place of nobody": 0})
    elif lost == "a place":
        client.zpopmin(ORDER)
    else:
        client.delete({"the order": ORDER, "the callers": CALLERS, "the reports": REPORTS}[lost])
    assert sorted(await board(replica, *rows)) == sorted(expected)
    assert state_of(client)[SUMS][:4] == [28, 28, 7, 1]
    assert client.zcard(ORDER) == 7


async def test_without_sums_the_order_is_left_alone_until_turns_are_given(world: World, client: redis.Redis) -> None:
    """A call after one by an older release does not repair only a part of an outdated order."""
    replica = await awake(world)
    await tick(replica, row("a"), row("b"))
    state = state_of(client)
    client.set(STATE, msgspec.msgpack.encode([*state[:9], int(state[1]) + 9_000, "paused", state[11]]))
    before = client.zrange(ORDER, 0, -1)
    await tick(replica, row("a", 2, waited_ms=500), row("c"))
    assert client.zrange(ORDER, 0, -1) == before
    assert state_of(client)[SUMS:] in ([], [None])
    assert sorted(await board(replica, row("a", 2, waited_ms=500), row("c"))) == [("a", 1), ("c", 1)]
    assert state_of(client)[SUMS][:4] == [3, 3, client.hlen(CALLERS), 1]
    assert client.zcard(ORDER) == client.hlen(CALLERS)


async def test_all_sums_are_recomputed_once_a_minute(world: World, client: redis.Redis) -> None:
    """Wrong sums, and a place that hides another, are corrected within a minute."""
    replica = world.shared("r1")
    await board(replica, row("a", 3, waited_ms=9), row("b", 2))
    state = state_of(client)
    client.zpopmin(ORDER)
    client.zadd(ORDER, {b"1" + b"\xff" * 16 + b"nobody": 0})
    client.set(STATE, msgspec.msgpack.encode([*state[:SUMS], [1, 1, *state[SUMS][2:]]]))
    world.now += 60_000
    later = (row("a", 3, waited_ms=60_009), row("b", 2, waited_ms=60_000))
    assert {caller for caller, _ in await board(replica, *later)} == {"a", "b"}
    assert state_of(client)[SUMS][:2] == [5, 5]
    assert replica.resets == 1


@pytest.mark.parametrize("sums", [[-1, 0, 0, 0, 0], [0, 0, 0, "x", 0], [1, 1, 1, 1], [0, 0, 0, 0, 10**12], 7])
async def test_nonsensical_sums_are_garbage(world: World, client: redis.Redis, sums: object) -> None:
    """Sums that were never saved by the script count as a loss of the state: all slots are taken, and turns go on."""
    replica = world.shared("r1")
    await tick(replica, row("a"))
    client.set(STATE, msgspec.msgpack.encode([*state_of(client)[:SUMS], sums]))
    await tick(replica, row("a"))
    assert replica.resets == 2
    world.now += QUIET
    assert len((await tick(replica, row("a"))).turns) == 1


async def test_places_sort_as_numbers_do(world: World, client: redis.Redis) -> None:
    """Tags below and above zero, and times of entry before the server's clock began, are in the order of numbers."""
    replica = await awake(world)
    await tick(replica)
    waited = [0, 1, 255, 256, int(world.now), 65_536, 10**9, 10**12]
    rows = [row(f"c{number}", waited_ms=each) for number, each in enumerate(waited)]
    assert [name for name, _ in await board(replica, *rows)][-7:] == [f"c{number}" for number in range(7)][::-1]


async def test_a_whole_report_changes_only_what_differs(world: World, client: redis.Redis) -> None:
    """Callers that are still waiting cost no write; those that the replica no longer reports are forgotten."""
    other = await awake(world, "r2")
    await tick(other, row("a"), row("gone"))
    known = [row(f"c{number}", 2, waited_ms=50) for number in range(5)]
    await tick(world.replica("r1"), *known, row("a"), row("gone"))
    client.config_resetstat()
    await tick(world.replica("r1"), *known, row("a"))
    stats: Any = client.info("commandstats")
    assert stats["cmdstat_hset"]["calls"] == 3  # the report, and the caller that is gone with its shares
    assert [share[0] for share in msgspec.msgpack.decode(client.hget("tg:{news}:shares", "gone"))] == ["r2"]


async def test_a_caller_that_leaves_when_reports_are_lost_is_forgotten(world: World, client: redis.Redis) -> None:
    """The whole report that is requested then replaces what is stored, although nothing says that anything is."""
    replica = await awake(world)
    await tick(replica, row("a"), row("gone"))
    client.delete(REPORTS)
    await tick(replica, row("a"))
    assert client.hkeys("tg:{news}:shares") == [b"a"]
