"""A turn that leads to no call ends, and its slot can be used at once, on the model and on the script."""

import pytest

from service.budget.scheduler.interfaces import AlreadyStored, Begun, Joined, Lapsed, Paused
from tests.contract.scheduler_calls import QUIET, begin, tick
from tests.contract.scheduler_world import World, row


@pytest.mark.parametrize("kind", [Joined, AlreadyStored, Paused])
async def test_a_refunded_turn_ends_and_its_slot_is_free(world: World, kind: type) -> None:
    """A refunded turn is no longer listed and can't begin, and the next caller gets another turn, usable at once."""
    one, two = world.replica("r1"), world.replica("r2")
    await tick(one)
    world.now += QUIET
    (first,) = (await tick(one, row("a"))).turns
    (second,) = (await tick(two, row("b"))).turns
    assert await begin(one, first, "b1") == Begun()
    if kind is AlreadyStored:
        world.put("b2", b"0123456789abcdef and more")
    if kind is Paused:
        await one.done(first.id, block="b1", pause_ms=500, pause_reason="throttled")
    assert isinstance(await begin(two, second, "b1" if kind is Joined else "b2"), kind)
    ticked = await tick(two)
    assert ticked.turns == ()
    assert ticked.free == 1
    assert await begin(two, second, "b3", known=b"0123456789abcdef") == Lapsed()
    if kind is Paused:
        world.now += 500
    (third,) = (await tick(two, row("c"))).turns
    assert third.id != second.id
    assert (third.caller, third.usable_in_ms) == ("c", 0)
    assert await begin(two, third, "b3", known=b"0123456789abcdef") == Begun()
    assert (await tick(two)).free == 0


async def test_a_block_can_be_fetched_again_after_its_fetch_has_ended(world: World) -> None:
    """Another replica may fetch the block at once, not only when the lease of the first fetch is over."""
    one, two = world.replica("r1"), world.replica("r2")
    await tick(one)
    world.now += QUIET
    (first,) = (await tick(one, row("a"))).turns
    (second,) = (await tick(two, row("b"))).turns
    assert await begin(one, first, "b1") == Begun()
    await one.done(first.id, block="b1", pause_ms=0, pause_reason="")
    assert await begin(two, second, "b1") == Begun()
