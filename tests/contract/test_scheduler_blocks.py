"""One fetch for a block at a time, and none for a block that is stored."""

import redis

from service.budget.scheduler.interfaces import AlreadyStored, Begun, Joined, Lapsed
from tests.contract.scheduler_calls import KEY, QUIET, REST, awake, begin, done, tick
from tests.contract.scheduler_world import RULES, World, row


async def test_a_second_begin_of_a_block_joins(world: World) -> None:
    """A second begin joins, is refunded, and its slot is free at once for another block."""
    one, two = await awake(world), world.replica("r2")
    (first,) = (await tick(one, row("a"))).turns
    (second,) = (await tick(two, row("b"))).turns
    assert await begin(one, first) == Begun()
    world.now += 10
    assert await begin(two, second) == Joined(lease_in_ms=RULES.fetch_lease_ms - 10)
    ticked = await tick(two, row("b"))
    (third,) = ticked.turns
    assert third.usable_in_ms == 0
    assert await begin(two, third, "c") == Begun()


async def test_an_abandoned_fetch_ends_with_its_lease(world: World) -> None:
    """After the fetch's lease another replica may fetch the block."""
    one = await awake(world)
    (first,) = (await tick(one, row("a"))).turns
    await begin(one, first)
    world.now += RULES.fetch_lease_ms
    (second,) = (await tick(one, row("a"))).turns
    assert await begin(one, second) == Begun()
    assert isinstance(await begin(one, first), Lapsed | Joined)


async def test_a_changed_block_is_read_again(world: World) -> None:
    """Begin compares the head of the stored block with the one known to the replica."""
    replica = await awake(world)
    (turn,) = (await tick(replica, row("a"))).turns
    world.put(KEY, b"0123456789abcdef and what follows")
    assert await begin(replica, turn) == AlreadyStored(head=b"0123456789abcdef")
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn, known=b"0123456789abcdef or whatever") == Begun()


async def test_a_lost_block_is_fetched(world: World) -> None:
    """A block that the replica has seen and the store has lost is no reason to look again: there is nothing to find."""
    replica = await awake(world)
    world.put(KEY, b"0123456789abcdef and what follows")
    world.lose(KEY)
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn, known=b"0123456789abcdef") == Begun()


async def test_the_head_that_begin_returns_lets_the_next_one_begin(world: World) -> None:
    """Any stored value, even an unreadable one, is reason to look once."""
    replica = await awake(world)
    for head in (b"\x00\xff\x80'%d\r\n\x7f234567", b"short", bytes(range(240, 256))):
        world.put(KEY, head + b" and the rest" * (len(head) == 16))
        (turn,) = (await tick(replica, row("a"))).turns
        assert await begin(replica, turn, known=b"another") == AlreadyStored(head=head)
        (turn,) = (await tick(replica, row("a"))).turns
        assert await begin(replica, turn, known=head) == Begun()
        await done(replica, turn)
        world.now += REST


async def test_a_value_of_another_type_counts_as_absent(world: World) -> None:
    """A value of another type counts as absent; the fetch replaces it with a block."""
    replica = await awake(world)
    world.garble(KEY)
    (turn,) = (await tick(replica, row("a"))).turns
    assert await begin(replica, turn) == Begun()


async def test_the_end_of_a_fetch_is_published(client: redis.Redis) -> None:
    """The block's name is published once on the scheduler's channel."""
    world = World(client)
    replica = world.shared("r1")
    with client.pubsub(ignore_subscribe_messages=True) as messages:
        messages.subscribe(replica.channel)
        await tick(replica)
        world.now += QUIET
        (turn,) = (await tick(replica, row("a"))).turns
        await begin(replica, turn, "block-7")
        await done(replica, turn, "block-7")
        told = [messages.get_message(timeout=1), messages.get_message(timeout=1)]
        assert messages.get_message(timeout=0.01) is None
    assert [message["data"] for message in told if message] == [b"block-7"]
