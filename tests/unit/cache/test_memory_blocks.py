"""Blocks in memory: bounded in bytes and time, and dropped on demand."""

import random
import struct
import tracemalloc

import pytest

from service.cache.memory_blocks import MemoryBlocks
from service.model.blocks import Block, CachedBlock, RefusedQuery, Stored
from service.model.queries import Range


class Clock:
    """A clock that is moved by the test."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def block(size: int, *, records: int = 0) -> Block:
    ends = tuple(range(300, 300 + records))
    return Block(
        fetched_at_ms=1, range=Range(since_s=0, until_s=1), total=0, settled=False, ends=ends, body=bytes(size)
    )


def listing(*ids: int, fetched_at_ms: int = 1) -> Block:
    """A block with these tasks."""
    return Block(
        fetched_at_ms=fetched_at_ms,
        range=Range(since_s=0, until_s=1),
        total=len(ids),
        settled=False,
        ends=tuple(range(1, 1 + len(ids))),
        body=bytes(10),
        ids=struct.pack(f">{len(ids)}q", *ids),
    )


def keep(
    cache: MemoryBlocks,
    key: str,
    stored: Stored,
    *,
    app: str = "a",
    ends_in_s: float = 60.0,
    finds_tasks: bool = False,
) -> None:
    kept = CachedBlock(stored=stored, head=key.encode())
    cache.put(key, kept, app=app, ends_in_s=ends_in_s, finds_tasks=finds_tasks)


def test_a_block_is_served_until_its_end_and_not_beyond() -> None:
    """When it expires, a block is removed, and its bytes with it."""
    clock = Clock()
    cache = MemoryBlocks(max_bytes=10_000, clock=clock)
    keep(cache, "k", block(100), ends_in_s=5.0)
    clock.now_s += 4.999
    found = cache.get("k")
    assert found is not None
    assert found.head == b"k"
    clock.now_s += 0.001
    assert cache.get("k") is None
    assert (cache.bytes, len(cache)) == (0, 0)


def test_the_least_recently_used_is_evicted_first() -> None:
    """If room is needed, the most recently read block stays."""
    cache = MemoryBlocks(max_bytes=10_000, clock=Clock())
    for key in ("one", "two", "three"):
        keep(cache, key, block(2000))
    assert cache.get("one")
    keep(cache, "four", block(2000))
    assert [key for key in ("one", "two", "three", "four") if cache.get(key)] == ["one", "three", "four"]
    assert cache.evictions == 1


def test_a_block_too_large_is_not_kept() -> None:
    """A block larger than the bound evicts nothing, and the previous value under its key is gone."""
    cache = MemoryBlocks(max_bytes=10_000, clock=Clock())
    keep(cache, "small", block(100))
    keep(cache, "k", block(100))
    keep(cache, "k", block(20_000))
    assert cache.get("k") is None
    assert cache.get("small")
    assert cache.evictions == 0


def test_no_room_means_no_cache() -> None:
    """With a bound of 0 nothing is kept, and nothing fails."""
    cache = MemoryBlocks(max_bytes=0, clock=Clock())
    keep(cache, "k", RefusedQuery(fetched_at_ms=1, code=1, text=""))
    assert cache.get("k") is None
    assert len(cache) == 0


def test_an_app_is_dropped_alone() -> None:
    """drop_app removes all blocks of the app and none of another."""
    cache = MemoryBlocks(max_bytes=100_000, clock=Clock())
    for number in range(10):
        keep(cache, f"a{number}", block(10), app="a")
        keep(cache, f"b{number}", block(10), app="b")
    assert cache.drop_app("a") == 10
    assert cache.drop_app("a") == 0
    assert len(cache) == 10
    assert cache.get("b3")
    assert cache.drop_app("b") == 10
    assert cache.bytes == 0


def test_counters_hold_over_any_use() -> None:
    """Over 20,000 random steps the bytes stay within the bound, and are 0 when all is dropped."""
    chance = random.Random(7)
    clock = Clock()
    cache = MemoryBlocks(max_bytes=50_000, clock=clock)
    for _ in range(20_000):
        key = f"k{chance.randrange(60)}"
        match chance.randrange(5):
            case 0 | 1:
                stored = (
                    listing(*range(chance.randrange(30))) if chance.random() < 0.5 else block(chance.randrange(4000))
                )
                app, ends_in_s = chance.choice("abc"), chance.random()
                keep(cache, key, stored, app=app, ends_in_s=ends_in_s, finds_tasks=chance.random() < 0.5)
            case 2:
                cache.get(key)
            case 3:
                cache.drop(key)
            case 4:
                clock.now_s += chance.random() / 10
                if chance.random() < 0.02:
                    cache.drop_app(chance.choice("abc"))
        assert 0 <= cache.bytes <= 50_000
        found = cache.find_task(chance.choice("abc"), chance.randrange(30))
        assert found is None or found.ids
    for app in "abc":
        cache.drop_app(app)
    assert (cache.bytes, len(cache)) == (0, 0)
    assert cache.find_task("a", 1) is None


def test_a_task_is_found_in_the_newest_block() -> None:
    """A task is found in the newest block, whatever the order in which blocks were stored, and only in its own app."""
    old, new = listing(1, 2, fetched_at_ms=5), listing(2, 3, fetched_at_ms=6)
    for order in ((old, new), (new, old)):
        cache = MemoryBlocks(max_bytes=100_000, clock=Clock())
        for stored in order:
            keep(cache, f"k{stored.fetched_at_ms}", stored, finds_tasks=True)
        assert [cache.find_task("a", id_) for id_ in (1, 2, 3, 4)] == [old, new, new, None]
        assert cache.find_task("b", 1) is None


def test_a_task_is_dropped_with_its_block() -> None:
    """A task is no longer found when its block expires, is dropped, evicted, or replaced by one without it."""
    clock = Clock()
    cache = MemoryBlocks(max_bytes=10_000, clock=clock)
    keep(cache, "expires", listing(1), ends_in_s=5.0, finds_tasks=True)
    keep(cache, "dropped", listing(2), finds_tasks=True)
    keep(cache, "replaced", listing(3, 4), finds_tasks=True)
    keep(cache, "alone", listing(5))
    clock.now_s += 5.0
    cache.drop("dropped")
    keep(cache, "replaced", listing(4), finds_tasks=True)
    assert [cache.find_task("a", id_) is None for id_ in (1, 2, 3, 4, 5)] == [True, True, True, False, True]
    keep(cache, "large", block(8_500))
    assert cache.find_task("a", 4) is None


@pytest.mark.parametrize("finds_tasks", [False, True])
def test_the_counted_sizes_match_the_allocations(finds_tasks: bool) -> None:
    """What Python allocates for a thousand blocks is within a quarter of what the cache counts."""
    cache = MemoryBlocks(max_bytes=100_000_000, clock=Clock())
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1000):
        ends = tuple(range(300 + number, 300 + number + 100))
        stored = Block(
            fetched_at_ms=10**12 + number,
            range=Range(since_s=10**9 + number, until_s=10**9 + 1 + number),
            total=1000 + number,
            settled=False,
            ends=ends,
            body=bytes(6000),
            ids=struct.pack(">100q", *range(10**9 + number * 100, 10**9 + number * 100 + 100)),
        )
        key = f"taskgate:{{app}}:b:0123456789abcdef0123456789abcdef:{number}"
        keep(cache, key, stored, ends_in_s=60.0 + number, finds_tasks=finds_tasks)
    allocated = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert 0.75 < allocated / cache.bytes < 1.25, (allocated / 1000, cache.bytes / 1000)


def test_values_in_place_of_a_block_count_by_their_size() -> None:
    """The text of a refusal is kept, too."""
    cache = MemoryBlocks(max_bytes=10_000, clock=Clock())
    keep(cache, "k", RefusedQuery(fetched_at_ms=1, code=1, text="x" * 5_000))
    assert 5_000 < cache.bytes < 7_000


def test_a_lifetime_of_zero_keeps_nothing() -> None:
    """A block with a lifetime of zero is not kept, and replaces the previous one."""
    cache = MemoryBlocks(max_bytes=10_000, clock=Clock())
    keep(cache, "k", block(100))
    keep(cache, "k", block(100), ends_in_s=0.0)
    assert cache.bytes == 0
    assert cache.get("k") is None


def test_of_two_blocks_of_the_same_moment_the_one_stored_last_has_the_task() -> None:
    """It may be the same block under another key: the older entry leaves first."""
    cache = MemoryBlocks(max_bytes=10_000, clock=Clock())
    keep(cache, "one", listing(7), finds_tasks=True)
    keep(cache, "two", listing(7, 8), finds_tasks=True)
    cache.drop("one")
    found = cache.find_task("a", 7)
    assert found is not None
    assert found.total == 2
