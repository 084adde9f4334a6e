"""Tasks that are found in blocks of lists, by one replica and by another: real Valkey, no HTTP."""

import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from service.cache.block_cache import BlockCache
from service.cache.memory_blocks import MemoryBlocks
from service.cache.redis_blocks import RedisBlocks
from service.cache.task_places import TaskPlace, TaskPlaces
from service.model.blocks import Block, BlockKey, MissingTask, Stored, TaskKey, block_of, block_of_task
from service.model.freshness import Lifetimes
from service.model.queries import At, Query, Range
from service.model.tasks import Listing, Task
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.blocks import keep
from tests.servers import Server
from tests.tasks import bare_task

LIFETIMES = Lifetimes(fresh_s=600, settled_s=600, refusal_s=600, stale_while_revalidate_s=60, stale_if_error_s=60)
QUERY = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=1))
OTHER = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=2))
LIST, TASK = BlockKey(query=QUERY, index=0), TaskKey(app="shop", id=7)
INDEX = "t:{shop}:b:i"


def task(id_: int, title: str) -> Task:
    return bare_task(id_, type="all", status="pending", title=title, content=msgspec.Raw(b"{}"))


def listed(*ids: int, title: str = "listed", at_ms: int = 1000) -> Block:
    tasks = tuple(task(id_, title) for id_ in ids)
    listing = Listing(total=len(ids), tasks=tasks)
    return block_of(listing, query=QUERY, range_=Range(since_s=0, until_s=1), fetched_at_ms=at_ms)


def alone(title: str = "alone", *, at_ms: int = 1000) -> Block:
    return block_of_task(task(TASK.id, title), fetched_at_ms=at_ms)


class Replica:
    """One replica's part of the cache."""

    def __init__(self, server: Server, *, memory_bytes: int = 1_000_000, tasks_max: int = 100_000) -> None:
        self.store = RedisStore(RedisSettings(url=server.url, timeout_s=5.0))
        blocks = RedisBlocks(self.store, prefix="t", block_size=100)
        memory = MemoryBlocks(max_bytes=memory_bytes, clock=time.monotonic)
        places = TaskPlaces(self.store, prefix="t", tasks_max=tasks_max)
        self.cache = BlockCache(blocks, memory, lifetimes=LIFETIMES, places=places)

    async def found(self) -> str | int | None:
        """The title of the task as Redis has it; when it was found missing; or None."""
        return title_or_time((await self.cache.get(TASK)).stored)

    def remembered(self) -> str | int | None:
        """The same from memory."""
        kept = self.cache.recall(TASK)
        return None if kept is None else title_or_time(kept.stored)


def title_or_time(stored: Stored | None) -> str | int | None:
    if isinstance(stored, Block):
        assert stored.total == len(stored.ends) == 1
        title: str = msgspec.json.decode(stored.body)["title"]
        return title
    return stored.fetched_at_ms if isinstance(stored, MissingTask) else None


@pytest.fixture
async def pair(valkey: Server) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two replicas on one server."""
    both = Replica(valkey), Replica(valkey)
    yield both
    for replica in both:
        await replica.store.aclose()


async def test_tasks_of_a_list_are_found_on_all_replicas(pair: tuple[Replica, Replica]) -> None:
    """Tasks are found at once on the replica that fetched the list; on others in Redis, and from then on in memory."""
    one, two = pair
    await keep(one.cache, LIST, listed(6, TASK.id))
    assert one.remembered() == "listed"
    assert two.remembered() is None
    assert await two.found() == "listed"
    assert two.remembered() == "listed"
    assert (await two.cache.get(TaskKey(app="shop", id=8))).stored is None


@pytest.mark.parametrize(
    ("own", "in_list", "expected"),
    [
        (alone(at_ms=1000), listed(TASK.id, at_ms=999), "alone"),
        (alone(at_ms=1000), listed(TASK.id, at_ms=1000), "alone"),
        (alone(at_ms=1000), listed(TASK.id, at_ms=1001), "listed"),
        (MissingTask(fetched_at_ms=1000), listed(TASK.id, at_ms=999), 1000),
        (MissingTask(fetched_at_ms=1000), listed(TASK.id, at_ms=1001), "listed"),
        (MissingTask(fetched_at_ms=1000), listed(8, at_ms=1001), 1000),
    ],
)
async def test_the_newer_of_two_sources_counts(
    pair: tuple[Replica, Replica], own: Stored, in_list: Block, expected: str | int
) -> None:
    """Of a task's own fetch, its absence, and a list with it, the newest counts, in memory and in Redis."""
    one, two = pair
    await keep(one.cache, LIST, in_list)
    await keep(one.cache, TASK, own)
    assert (one.remembered(), await one.found(), await two.found()) == (expected, expected, expected)


async def test_the_head_is_that_of_the_tasks_own_key(pair: tuple[Replica, Replica]) -> None:
    """The head is that under the task's own key, which the budget compares before a call."""
    one, two = pair
    await keep(one.cache, TASK, alone())
    head = (await one.cache.look(TASK)).head
    await keep(one.cache, LIST, listed(TASK.id, at_ms=2000))
    assert ((await two.cache.get(TASK)).head, await two.found()) == (head, "listed")
    assert title_or_time((await two.cache.look(TASK)).stored) == "alone"


async def test_an_outdated_place_finds_nothing(pair: tuple[Replica, Replica], valkey: Server) -> None:
    """If the block was replaced by one without the task, has expired or can't be read, nothing is found."""
    one, two = pair
    await keep(one.cache, LIST, listed(TASK.id))
    await keep(one.cache, LIST, listed(8, at_ms=2000))
    assert await two.found() is None
    there, redis_key = TaskKey(app="shop", id=8), one.cache.redis_key(LIST)
    assert (await two.cache.get(there)).stored is not None
    for harm in (("SET", redis_key, "?"), ("DEL", redis_key)):
        valkey.run(*harm)
        two.cache.forget("shop")
        assert (await two.cache.get(there)).stored is None


@pytest.mark.parametrize("value", ["", " ", "x", "5", "5 ", " 5", "-1 a:0", f"{'9' * 30} a:0", "5 ../../x"])
async def test_garbage_in_the_index_finds_nothing(pair: tuple[Replica, Replica], valkey: Server, value: str) -> None:
    """Arbitrary values in the index are ignored."""
    valkey.run("HSET", INDEX, str(TASK.id), value)
    assert await pair[0].found() is None


async def test_an_index_of_another_type_is_replaced(pair: tuple[Replica, Replica], valkey: Server) -> None:
    """A key of another type, or with a count that is no number, is replaced."""
    one, two = pair
    valkey.run("SET", INDEX, "text")
    assert await two.found() is None
    await keep(one.cache, LIST, listed(TASK.id))
    assert await two.found() == "listed"
    valkey.run("HSET", INDEX, "#", "many", "3", "5 a:0")
    await keep(one.cache, LIST, listed(TASK.id, at_ms=2000))
    assert valkey.run("HGETALL", INDEX) == {b"#": b"1", b"7": valkey.run("HGET", INDEX, "7")}


async def test_the_index_is_bounded(valkey: Server) -> None:
    """Beyond its bound it starts again; it lives as long as what it was last written for; a purge deletes it."""
    replica = Replica(valkey, tasks_max=250)
    try:
        for number in range(4):
            ids = range(number * 100, number * 100 + 100)
            await keep(replica.cache, BlockKey(query=QUERY, index=number), listed(*ids))
        assert valkey.run("HLEN", INDEX) == 1 + 200
        assert 600_000 < valkey.run("PTTL", INDEX) <= 660_000
        blocks = RedisBlocks(replica.store, prefix="t", block_size=100)
        assert await blocks.drop_app("shop") == 6
        assert valkey.run("EXISTS", INDEX) == 0
    finally:
        await replica.store.aclose()


async def test_an_app_has_a_hundred_thousand_places(valkey: Server) -> None:
    """Some eleven megabytes of Redis; then it starts again."""
    replica = Replica(valkey)
    places = TaskPlaces(replica.store, prefix="t")
    place = TaskPlace(block="a:0", fetched_at_ms=1)
    try:
        valkey.run("HSET", INDEX, "#", "99998")
        for task_id, kept in ((1, 2), (2, 3), (3, 2)):
            await places.put("shop", [task_id], place, ttl_ms=10_000)
            assert valkey.run("HLEN", INDEX) == kept
    finally:
        await replica.store.aclose()


async def test_a_block_of_a_thousand_tasks_is_indexed(pair: tuple[Replica, Replica]) -> None:
    """The index takes a thousand tasks of one block, the largest that is possible."""
    one, two = pair
    await keep(one.cache, LIST, listed(*range(TASK.id, TASK.id + 1000)))
    assert await two.found() == "listed"


async def test_a_forgotten_app_finds_nothing_in_memory(pair: tuple[Replica, Replica]) -> None:
    """A purge forgets lists and tasks alike."""
    one, _ = pair
    await keep(one.cache, LIST, listed(TASK.id))
    await keep(one.cache, TaskKey(app="shop", id=8), alone())
    one.cache.forget("shop")
    assert one.remembered() is None
    assert one.cache.recall(TaskKey(app="shop", id=8)) is None


async def test_a_place_is_read_as_it_was_written(valkey: Server) -> None:
    """Each task of a block is found at the place that was stored."""
    replica = Replica(valkey)
    places = TaskPlaces(replica.store, prefix="t")
    place = TaskPlace(block="0123456789abcdef:12", fetched_at_ms=1_700_000_000_000)
    try:
        await places.put("shop", (1, 2**63 - 1), place, ttl_ms=1000)
        assert await places.find("shop", 2**63 - 1) == place
        assert await places.find("shop", 3) is None
        await places.put("news", (), place, ttl_ms=1000)
        assert valkey.run("EXISTS", places.redis_key("news")) == 0
    finally:
        await replica.store.aclose()
