"""The purpose of each step of a purge, in virtual time: both messages, the pause between, and blocks being written
or read."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from service.cache.purge import HEARD_S, Purge
from service.model.blocks import Block, BlockKey
from service.model.errors import StoreUnavailable
from tests.blocks import keep, one_task
from tests.simulation.small_world import APP, OTHER_APP, WALL_S, SmallWorld, play, query_of

QUERY = query_of("purged")
KEY = BlockKey(query=QUERY, index=0)


def block(world: SmallWorld) -> Block:
    """Return a block that has just been fetched."""
    return one_task(fetched_at_ms=int((WALL_S + world.loop.time()) * 1000))


async def put(world: SmallWorld, *, replica: int = 0, index: int = 0) -> bool:
    """Take and store a block that was fetched just now; return whether it may be served."""
    cache = world.replicas[replica].cache
    new = cache.take(BlockKey(query=QUERY, index=index), block(world), generation=cache.generation(APP))
    if new is not None:
        await cache.store(new, caller="c")
    return new is not None


def remembers(world: SmallWorld, *, replica: int = 0, index: int = 0) -> bool:
    """Return whether the replica has the block in memory."""
    return world.replicas[replica].cache.recall(BlockKey(query=QUERY, index=index)) is not None


def purged(scene: Callable[[SmallWorld, "asyncio.Task[int]"], Awaitable[None]]) -> None:
    """Purge the app on the first of two replicas while `scene` runs."""

    async def whole(world: SmallWorld) -> None:
        await put(world)
        await world.replicas[1].cache.get(KEY)
        assert remembers(world, replica=1)
        purge = asyncio.create_task(world.replicas[0].gateway.drop(APP))
        await scene(world, purge)
        await purge

    play(whole, replicas=2)


def test_other_replicas_forget_before_anything_is_deleted() -> None:
    """The first message reaches them while Redis still has the blocks: nothing that they fetched before is stored."""

    async def scene(world: SmallWorld, purge: "asyncio.Task[int]") -> None:
        names = len(world.redis.names())
        await asyncio.sleep(HEARD_S / 2)
        assert not remembers(world, replica=0)
        assert not remembers(world, replica=1)
        assert len(world.redis.names()) == names + 1, "the blocks, and the purge's token"
        assert not purge.done()

    purged(scene)


def test_blocks_read_between_the_messages_are_forgotten_with_the_second() -> None:
    """A block read from Redis before it was deleted stays in no memory."""

    async def scene(world: SmallWorld, purge: "asyncio.Task[int]") -> None:
        await asyncio.sleep(HEARD_S / 2)
        for replica in (0, 1):
            await world.replicas[replica].cache.get(KEY)
            assert remembers(world, replica=replica)
        await purge
        await asyncio.sleep(0.01)
        assert not remembers(world, replica=0)
        assert not remembers(world, replica=1)
        assert (await world.replicas[1].cache.get(KEY)).stored is None

    purged(scene)


def test_a_purge_returns_the_number_of_deleted_values() -> None:
    """Blocks and ends of lists are counted, of this app only."""

    async def scene(world: SmallWorld) -> None:
        for index in range(3):
            await put(world, index=index)
        other = BlockKey(query=msgspec.structs.replace(QUERY, app=OTHER_APP), index=0)
        cache = world.replicas[0].cache
        await keep(cache, other, block(world))
        assert await world.replicas[0].gateway.drop(APP) == 4
        assert cache.recall(other) is not None
        assert cache.generation(OTHER_APP) == 0
        assert (await world.replicas[1].cache.get(other)).stored is not None

    play(scene, replicas=2)


def test_a_block_that_was_fetched_before_a_purge_is_neither_served_nor_remembered() -> None:
    """The generation has changed since its call began; one that is fetched afterwards is taken."""

    async def scene(world: SmallWorld) -> None:
        cache = world.replicas[0].cache
        began = cache.generation(APP)
        cache.forget(APP)
        assert cache.take(KEY, block(world), generation=began) is None
        assert not remembers(world)
        assert await put(world)

    play(scene)


def test_a_block_that_was_purged_before_it_was_written_is_not_written() -> None:
    """A block that was taken and served before the message of a purge is not written after it."""

    async def scene(world: SmallWorld) -> None:
        cache = world.replicas[0].cache
        new = cache.take(KEY, block(world), generation=cache.generation(APP))
        assert new is not None
        assert remembers(world)
        cache.forget(APP)
        writes = world.redis_calls("set")
        await cache.store(new, caller="c")
        assert world.redis_calls("set") == writes
        assert not remembers(world)

    play(scene)


def test_a_purge_while_a_block_is_being_written_wins() -> None:
    """The write is on its way when the purge begins: Redis and both memories are empty afterwards."""

    async def scene(world: SmallWorld) -> None:
        writing = asyncio.create_task(put(world, replica=1))
        await asyncio.sleep(0)
        await world.replicas[0].gateway.drop(APP)
        await writing
        await asyncio.sleep(0.01)
        assert not remembers(world, replica=1)
        assert (await world.replicas[0].cache.get(KEY)).stored is None

    play(scene, replicas=2)


@pytest.mark.parametrize("way", ["get", "look"])
def test_a_purge_while_a_block_is_being_read_wins(way: str) -> None:
    """The request from before the purge gets the block, later ones do not."""

    async def scene(world: SmallWorld) -> None:
        await put(world)
        cache = world.replicas[1].cache
        reading = asyncio.create_task(getattr(cache, way)(KEY))
        await asyncio.sleep(0.0005)
        cache.forget(APP)
        assert (await reading).stored is not None
        assert not remembers(world, replica=1)

    play(scene, replicas=2)


def test_a_replica_that_missed_a_purge_forgets_when_it_listens_again() -> None:
    """The replica compares the token of the last purge with its own; a gap without a purge costs nothing."""

    async def scene(world: SmallWorld) -> None:
        await put(world)
        await world.replicas[1].cache.get(KEY)
        deaf = world.replicas[1]
        deaf.network.is_listening = False
        deaf.store.reconnect()
        await asyncio.sleep(0.1)
        assert remembers(world, replica=1), "nothing was missed"
        deaf.network.is_listening = False
        await world.replicas[0].gateway.drop(APP)
        assert remembers(world, replica=1)
        deaf.store.reconnect()
        await asyncio.sleep(0.1)
        assert not remembers(world, replica=1)
        await put(world, replica=1)
        deaf.store.reconnect()
        await asyncio.sleep(0.1)
        assert remembers(world, replica=1), "that purge is known now"

    play(scene, replicas=2)


def test_a_replica_that_can_not_tell_whether_it_missed_a_purge_forgets() -> None:
    """If the token can't be read, the replica clears its memory."""

    async def scene(world: SmallWorld) -> None:
        await put(world)
        world.redis.is_away = True
        world.replicas[0].store.reconnect()
        await asyncio.sleep(0.1)
        assert not remembers(world)
        world.redis.is_away = False

    play(scene)


def test_a_redis_that_has_lost_the_token_has_purged_nothing() -> None:
    """After a restart without data, memories are kept."""

    async def scene(world: SmallWorld) -> None:
        await world.replicas[0].gateway.drop(APP)
        await put(world)
        world.redis.restore({})
        world.replicas[0].store.reconnect()
        await asyncio.sleep(0.1)
        assert remembers(world)

    play(scene)


def test_a_purge_without_redis_clears_the_own_memory_and_fails() -> None:
    """A purge without Redis clears this replica's memory, and fails, since the others were not reached."""

    async def scene(world: SmallWorld) -> None:
        await put(world)
        world.redis.is_away = True
        with pytest.raises(StoreUnavailable):
            await world.replicas[0].gateway.drop(APP)
        assert not remembers(world)
        world.redis.is_away = False

    play(scene)


def test_a_replica_ignores_its_own_messages() -> None:
    """Blocks fetched since its purge are kept when the replica receives its own second message."""

    async def scene(world: SmallWorld) -> None:
        await world.replicas[0].gateway.drop(APP)
        assert await put(world)
        await asyncio.sleep(0.1)
        assert remembers(world)

    play(scene)


def test_a_purge_that_ends_waits_for_its_checks() -> None:
    """No task of a purge outlives `aclose`."""

    async def scene(world: SmallWorld) -> None:
        purge: Purge = world.replicas[0].purge
        before = asyncio.all_tasks()
        world.replicas[0].store.reconnect()
        await purge.aclose()
        assert {task for task in asyncio.all_tasks() - before if "_look" in repr(task.get_coro())} == set()

    play(scene)
