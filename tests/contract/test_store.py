"""The guarantees of every store: on one server, Sentinel's master, a cluster, and in the memory of simulations."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from service.model.errors import StoreUnavailable
from service.settings import RedisSettings
from service.store.interfaces import Put, Store
from service.store.redis_store import RedisStore
from tests.servers import BINARIES, Server, until
from tests.simulation.memory_redis import MemoryRedis, MemoryStore, Network

COUNT = "return {redis.call('INCR', KEYS[1]), ARGV[1]}"


SERVERS = {"single": "valkey", "sentinel": "valkey_sentinel", "cluster": "valkey_cluster"}
SERVERS |= {f"single {name}": f"{name}_server" for name in BINARIES if name != "valkey"}


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Server]:
    """Redis itself, if it is installed."""
    with Server(binary=BINARIES["redis"]) as server:
        yield server


@asynccontextmanager
async def opened(request: pytest.FixtureRequest, mode: str) -> AsyncIterator[RedisStore]:
    servers = request.getfixturevalue(SERVERS[mode])
    mode = mode.partition(" ")[0]
    store = RedisStore(RedisSettings(url=servers.url, mode=mode, connections=8, timeout_s=5.0))
    yield store
    await store.aclose()
    assert store.open_connections == 0


@pytest.fixture(params=SERVERS)
async def redis_store(request: pytest.FixtureRequest) -> AsyncIterator[RedisStore]:
    """A store that runs scripts, over connections."""
    async with opened(request, request.param) as store:
        yield store


@pytest.fixture(params=["memory", *SERVERS])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    """Any store."""
    if request.param == "memory":
        store = MemoryStore(MemoryRedis(time.monotonic), Network(random.Random(1), delay_s=(0.0, 0.001)))
        yield store
        await store.aclose()
    else:
        async with opened(request, request.param) as store:
            yield store


async def test_a_stored_value_is_returned_unchanged(store: Store) -> None:
    """Bytes of any kind survive, and a key that was never put has no value."""
    value = bytes(range(256)) * 100
    await store.put("t:{a}:k", value, ttl_ms=10_000)
    assert await store.get("t:{a}:k") == value
    assert await store.get("t:{a}:other") is None


async def test_values_are_stored_together(store: Store) -> None:
    """Many values of one hash tag are stored at once, each under its key and for its time, wherever they belong."""
    for app in ("a", "b", "c"):
        puts = [Put(key=f"t:{{{app}}}:{n}", value=b"%d" % n, ttl_ms=10_000 if n else 1) for n in range(3)]
        await store.put_all(puts)
        assert [await store.get(f"t:{{{app}}}:{n}") for n in (1, 2)] == [b"1", b"2"]
        started_s = time.monotonic()
        while await store.get(f"t:{{{app}}}:0") is not None:
            assert time.monotonic() - started_s < 10


async def test_a_value_expires(store: Store) -> None:
    """A value expires after its time to live."""
    await store.put("t:{a}:brief", b"1", ttl_ms=30)
    started = time.monotonic()
    while await store.get("t:{a}:brief") is not None:
        assert time.monotonic() - started < 10
        await asyncio.sleep(0.01)
    assert time.monotonic() - started > 0.015


async def test_keys_of_all_apps_are_found(store: Store) -> None:
    """Keys of many hash tags are put and read, on whichever node they are."""
    keys = [f"t:{{app{number}}}:k" for number in range(40)]
    await asyncio.gather(*(store.put(key, key.encode(), ttl_ms=10_000) for key in keys))
    assert await asyncio.gather(*(store.get(key) for key in keys)) == [key.encode() for key in keys]


async def test_a_script_runs_where_its_keys_live(redis_store: RedisStore) -> None:
    """A script sees its keys and arguments, on any hash tag, and runs once for each call."""
    script = redis_store.script(COUNT)
    for number in range(6):
        assert await script([f"t:{{app{number}}}:n"], ["x"]) == [1, b"x"]
        assert await script([f"t:{{app{number}}}:n"], [b"\xff\x00"]) == [2, b"\xff\x00"]


async def test_a_script_that_fails_is_refused(redis_store: RedisStore) -> None:
    """An error in a script is StoreUnavailable and says so, without the script's message."""
    with pytest.raises(StoreUnavailable) as caught:
        await redis_store.script("return redis.error_reply('SECRET ' .. KEYS[1])")(["t:{a}:k"], [])
    assert caught.value.detail == "script refused"
    assert "SECRET" not in str(caught.value)


async def test_a_purge_takes_one_prefix_only(store: Store) -> None:
    """All keys under a prefix are deleted, even thousands; others stay, even if the prefix looks like a pattern."""
    names = [f"t:{{a*}}:b:{number}" for number in range(1500)]
    for first in range(0, len(names), 100):  # more at once would wait for their turn, and not for long
        await asyncio.gather(*(store.put(name, b"1", ttl_ms=60_000) for name in names[first : first + 100]))
    await store.put("t:{a*}:other", b"1", ttl_ms=60_000)
    await store.put("t:{ab}:b:1", b"1", ttl_ms=60_000)
    assert await store.delete_matching("t:{a*}:b:") == 1500
    assert await store.get(names[7]) is None
    assert await store.get("t:{a*}:other") == b"1"
    assert await store.get("t:{ab}:b:1") == b"1"
    assert await store.delete_matching("t:{a*}:b:") == 0


async def test_messages_reach_all_handlers_in_order(redis_store: RedisStore) -> None:
    """Messages arrive at every handler of the channel and no other, in order, once listening has begun."""
    heard: list[bytes] = []
    also: list[bytes] = []
    begun: list[str] = []
    redis_store.listen("t:{a}:c", heard.append, on_gap=lambda: begun.append("a"))
    redis_store.listen("t:{b}:c", also.append, on_gap=lambda: begun.append("b"))
    await until(lambda: set(begun) == {"a", "b"})
    for number in range(50):
        await redis_store.publish("t:{a}:c", b"%d" % number)
    await redis_store.script("return {redis.call('PUBLISH', ARGV[1], 'x')}")(["t:{zz}:k"], ["t:{b}:c"])
    await until(lambda: len(heard) == 50 and len(also) == 1)
    assert heard == [b"%d" % number for number in range(50)]
    assert also == [b"x"]


async def test_a_channel_may_be_added_later(store: Store) -> None:
    """A channel added while others are being listened to gets its start notification and its messages."""
    begun: list[str] = []
    late: list[bytes] = []
    store.listen("t:{a}:first", lambda _: None, on_gap=lambda: begun.append("first"))
    await until(lambda: begun == ["first"])
    store.listen("t:{a}:late", late.append, on_gap=lambda: begun.append("late"))
    await until(lambda: begun == ["first", "late"])
    await store.publish("t:{a}:late", b"1")
    await until(lambda: late == [b"1"])


async def test_cancelled_calls_leak_no_connection(redis_store: RedisStore) -> None:
    """After 1,000 calls cancelled at any moment, the connections are within their bound and answer in step."""
    await redis_store.put("t:{a}:k", b"v", ttl_ms=60_000)
    script = redis_store.script(COUNT)

    async def one(number: int) -> None:
        calls: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: redis_store.get("t:{a}:k"),
            lambda: script(["t:{a}:n"], ["x"]),
            lambda: redis_store.put(f"t:{{a}}:{number}", b"w", ttl_ms=60_000),
        )
        task = asyncio.ensure_future(calls[number % 3]())
        for _ in range(number % 7):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for batch in range(0, 1000, 20):
        await asyncio.gather(*(one(number) for number in range(batch, batch + 20)))
    assert await asyncio.gather(*(redis_store.get("t:{a}:k") for _ in range(20))) == [b"v"] * 20
    assert redis_store.open_connections <= 8 + 2
    await until(lambda: not any(task.get_name().startswith("store-call") for task in asyncio.all_tasks()))


async def test_a_cancelled_put_is_finished(store: Store) -> None:
    """A put whose caller is cancelled while it is in progress is carried out."""
    task = asyncio.ensure_future(store.put("t:{a}:begun", b"v", ttl_ms=60_000))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    started_s = time.monotonic()
    while await store.get("t:{a}:begun") is None:
        assert time.monotonic() - started_s < 10


async def test_more_callers_than_connections_wait_briefly(redis_store: RedisStore) -> None:
    """Two hundred calls at once share eight connections, and none is refused."""
    await redis_store.put("t:{a}:k", b"v", ttl_ms=60_000)
    assert await asyncio.gather(*(redis_store.get("t:{a}:k") for _ in range(200))) == [b"v"] * 200
    assert redis_store.open_connections <= 8 + 2


async def test_a_closed_store_refuses(redis_store: RedisStore) -> None:
    """After aclose, calls are refused at once and no connection is left."""
    await redis_store.get("t:{a}:k")
    await redis_store.aclose()
    with pytest.raises(StoreUnavailable) as caught:
        await redis_store.get("t:{a}:k")
    assert caught.value.detail == "closed"
    assert redis_store.open_connections == 0


async def test_a_script_that_was_not_loaded_does_not_run(redis_store: RedisStore) -> None:
    """`if_loaded` returns None, and nothing has run, until the script has been loaded into that server."""
    script = redis_store.script(f"-- {time.monotonic_ns()}\n{COUNT}")
    assert await script.if_loaded(["t:{a}:loaded"], ["x"]) is None
    assert await redis_store.get("t:{a}:loaded") is None
    assert await script.load(["t:{a}:loaded"], ["x"]) == [1, b"x"]
    assert await script.if_loaded(["t:{a}:loaded"], ["y"]) == [2, b"y"]


async def test_a_key_of_another_type_has_no_value(redis_store: RedisStore) -> None:
    """A key of another type has no value, and can be put."""
    await redis_store.script("return {redis.call('LPUSH', KEYS[1], 'x')}")(["t:{a}:list"], [])
    assert await redis_store.get("t:{a}:list") is None
    await redis_store.put("t:{a}:list", b"v", ttl_ms=10_000)
    assert await redis_store.get("t:{a}:list") == b"v"
