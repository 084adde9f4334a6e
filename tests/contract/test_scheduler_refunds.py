"""A turn that leads to no call ends, and its slot can be used at once, on the model and on the script."""

from collections.abc import Iterator

import pytest
import redis

from service.budget.scheduler.interfaces import AlreadyStored, Begun, Joined, Lapsed, Paused, Scheduler, Ticked
from tests.contract.scheduler_world import RULES, World, row, server

KEY = "tg:{news}:b"
QUIET = RULES.longest_ms


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    """A server that the tests of this file share."""
    with server() as client:
        yield client


@pytest.fixture(params=["local", "valkey"])
def world(request: pytest.FixtureRequest, client: redis.Redis) -> World:
    """A world without Redis, or with it."""
    return World(None if request.param == "local" else client, RULES)


async def _tick(replica: Scheduler, *callers: str) -> Ticked:
    rows = tuple(row(caller) for caller in callers)
    return await replica.tick(rows, returned=(), quiet=False, wants_board=False)


async def _begin(replica: Scheduler, turn: int, block: str, *, known: bytes = b"") -> object:
    return await replica.begin(turn, block=block, block_key=KEY, known=known)


@pytest.mark.parametrize("kind", [Joined, AlreadyStored, Paused])
async def test_a_refunded_turn_ends_and_its_slot_is_free(world: World, kind: type) -> None:
    """A refunded turn is no longer listed and can't begin, and the next caller gets another turn, usable at once."""
    one, two = world.replica("r1"), world.replica("r2")
    await _tick(one)
    world.now += QUIET
    (first,) = (await _tick(one, "a")).turns
    (second,) = (await _tick(two, "b")).turns
    assert await _begin(one, first.id, "b1") == Begun()
    if kind is AlreadyStored:
        world.put(KEY, b"0123456789abcdef and more")
    if kind is Paused:
        await one.done(first.id, block="b1", pause_ms=500, pause_reason="throttled")
    assert isinstance(await _begin(two, second.id, "b1" if kind is Joined else "b2"), kind)
    ticked = await _tick(two)
    assert ticked.turns == ()
    assert ticked.free == 1
    assert await _begin(two, second.id, "b3", known=b"0123456789abcdef") == Lapsed()
    if kind is Paused:
        world.now += 500
    (third,) = (await _tick(two, "c")).turns
    assert third.id != second.id
    assert (third.caller, third.usable_in_ms) == ("c", 0)
    assert await _begin(two, third.id, "b3", known=b"0123456789abcdef") == Begun()
    assert (await _tick(two)).free == 0


async def test_a_block_can_be_fetched_again_after_its_fetch_has_ended(world: World) -> None:
    """Another replica may fetch the block at once, not only when the lease of the first fetch is over."""
    one, two = world.replica("r1"), world.replica("r2")
    await _tick(one)
    world.now += QUIET
    (first,) = (await _tick(one, "a")).turns
    (second,) = (await _tick(two, "b")).turns
    assert await _begin(one, first.id, "b1") == Begun()
    await one.done(first.id, block="b1", pause_ms=0, pause_reason="")
    assert await _begin(two, second.id, "b1") == Begun()
