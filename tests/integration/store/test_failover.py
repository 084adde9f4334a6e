"""Sentinel's failovers and a cluster's changes: the store follows, and so does its listener."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
import redis

from service.model.errors import StoreUnavailable
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.integration.store.answering import answers
from tests.ports import free_port
from tests.servers import Cluster, Guarded, Server, eventually, until

INCREMENT = "return {redis.call('INCR', KEYS[1])}"
KEY = "t:{a}:k"


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    with Guarded() as servers:
        yield servers


@pytest.fixture
async def store(guarded: Guarded) -> AsyncIterator[RedisStore]:
    """A store that knows two Sentinels, one of which is unreachable."""
    url = f"redis://127.0.0.1:{free_port()},127.0.0.1:{guarded.sentinel.port}"
    store = RedisStore(RedisSettings(url=url, mode="sentinel", connections=8, timeout_s=0.5))
    yield store
    await store.aclose()
    _nothing_left(store)


@pytest.fixture
async def clustered(valkey_cluster: Cluster) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisSettings(url=valkey_cluster.url, mode="cluster", connections=8, timeout_s=5.0))
    yield store
    await store.aclose()
    _nothing_left(store)


def _nothing_left(store: RedisStore) -> None:
    assert store.open_connections == 0
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("store")] == []


async def promoted(guarded: Guarded) -> float:
    """Seconds until the Sentinel names the second server, and it takes writes."""
    started_s = time.monotonic()

    def done() -> bool:
        return guarded.master_port() == guarded.second.port and guarded.second.run("ROLE")[0] == b"master"

    await asyncio.to_thread(eventually, done)
    return time.monotonic() - started_s


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_the_store_follows_a_failover(store: RedisStore, guarded: Guarded, fault: str) -> None:
    """When the master dies or hangs, scripts run and messages are heard soon after the new one's naming."""
    gaps: list[int] = []
    heard: list[bytes] = []
    script = store.script(INCREMENT)
    store.listen("t:c", heard.append, on_gap=lambda: gaps.append(1))
    await answers(lambda: script([KEY], []))
    await until(lambda: gaps == [1])
    getattr(guarded.first, fault)()
    calling = asyncio.create_task(answers(lambda: script(["t:{a}:after"], []), within_s=30.0))
    named_s = await promoted(guarded)
    assert await calling < named_s + 4.0
    await until(lambda: len(gaps) == 2)
    await store.publish("t:c", b"1")
    await until(lambda: heard == [b"1"])
    assert guarded.second.connections() <= 8 + 1


async def test_a_planned_failover_is_followed(store: RedisStore, guarded: Guarded) -> None:
    """The old master still answers for seconds: the listener and a hundred calls, 20 ms apart, leave it, because the
    store queries Sentinel again."""
    gaps: list[int] = []
    store.listen("t:c", lambda _: None, on_gap=lambda: gaps.append(1))
    script = store.script(INCREMENT)
    await answers(lambda: script([KEY], []))
    await until(lambda: gaps == [1])
    await asyncio.to_thread(eventually, lambda: _handed_over(guarded))
    await promoted(guarded)
    number = 0
    while not guarded.second.run("EXISTS", f"t:{{a}}:{number}"):
        assert number < 100
        number += 1
        await script([f"t:{{a}}:{number}"], [])
        await asyncio.sleep(0.02)
    await until(lambda: len(gaps) == 2, within_s=5.0)


async def test_a_demoted_master_is_left_at_once(store: RedisStore, guarded: Guarded) -> None:
    """A script that meets READONLY is run by the new master, once, and its caller notices nothing."""
    script = store.script(INCREMENT)
    assert await script([KEY], []) == [1]
    await asyncio.to_thread(eventually, lambda: _handed_over(guarded))
    await promoted(guarded)
    guarded.first.run("REPLICAOF", "127.0.0.1", guarded.second.port)
    assert await script([KEY], []) == [2]
    assert await store.get(KEY) == b"2"


async def test_without_sentinel_a_known_master_keeps_serving(store: RedisStore, guarded: Guarded) -> None:
    """A store that knows its master needs no Sentinel; one that does not fails as unreachable."""
    await store.put(KEY, b"v", ttl_ms=60_000)
    guarded.sentinel.kill()
    await asyncio.sleep(1.2)  # longer than the interval between the store's queries
    assert await asyncio.gather(*(store.get(KEY) for _ in range(20))) == [b"v"] * 20
    other = RedisStore(RedisSettings(url=guarded.url, mode="sentinel", timeout_s=5.0))
    results = await asyncio.gather(*(other.get(KEY) for _ in range(20)), return_exceptions=True)
    assert {getattr(result, "detail", None) for result in results} == {"unreachable"}
    await other.aclose()


async def test_a_wrong_name_is_unreachable(guarded: Guarded) -> None:
    """If the Sentinels do not know the master's name, calls raise StoreUnavailable."""
    other = RedisStore(RedisSettings(url=guarded.url, mode="sentinel", sentinel_master="nobody", timeout_s=5.0))
    with pytest.raises(StoreUnavailable):
        await other.get(KEY)
    await other.aclose()


def _handed_over(guarded: Guarded) -> bool:
    """Request a failover; refused while the Sentinel does not know enough of the replica."""
    try:
        guarded.sentinel.run("SENTINEL", "FAILOVER", "mymaster")
    except redis.ResponseError:
        return False
    return True


def _slots_moved(cluster: Cluster, key: str) -> tuple[int, Server, Server]:
    """Return a key's slot, the node that holds it, and another node."""
    holder = cluster.holder(key)
    other = next(server for server in cluster.servers if server is not holder)
    return int(holder.run("CLUSTER", "KEYSLOT", key)), holder, other


def _id(server: Server) -> str:
    identity: bytes = server.run("CLUSTER", "MYID")
    return identity.decode()


async def test_a_moved_slot_is_followed(clustered: RedisStore, valkey_cluster: Cluster) -> None:
    """While a slot moves and after it has moved, scripts and reads succeed, and each script runs once."""
    script = clustered.script(INCREMENT)
    key = "t:{moving}:n"
    slot, holder, other = _slots_moved(valkey_cluster, key)
    await script(["t:{elsewhere}:n"], [])
    other.run("CLUSTER", "SETSLOT", slot, "IMPORTING", _id(holder))
    holder.run("CLUSTER", "SETSLOT", slot, "MIGRATING", _id(other))
    assert await script([key], []) == [1]  # no such key at the old holder: ASK
    for server in (other, holder):
        server.run("CLUSTER", "SETSLOT", slot, "NODE", _id(other))
    assert await script([key], []) == [2]  # MOVED
    counts = await asyncio.gather(*(script([key], []) for _ in range(20)))
    assert sorted(counts) == [[n] for n in range(3, 23)]
    assert await clustered.get(key) == b"22"
    for server in (holder, other):
        server.run("FLUSHALL")
        server.run("CLUSTER", "SETSLOT", slot, "NODE", _id(holder))


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


async def test_a_dead_node_takes_only_its_slots(own_cluster: Cluster) -> None:
    """With one of three masters dead, keys of the others are served at once and its own raise StoreUnavailable; the
    listener moves to a live node, and everything works again when the node returns.
    """
    settings = RedisSettings(url=own_cluster.url, mode="cluster", connections=8, timeout_s=2.0)
    async with aclosing(RedisStore(settings)) as store:
        gaps: list[int] = []
        heard: list[bytes] = []
        store.listen("t:c", heard.append, on_gap=lambda: gaps.append(1))
        await until(lambda: gaps == [1])
        deaf = next(
            server for server in own_cluster.servers if b"sub=1" in server.run("CLIENT", "LIST", "TYPE", "PUBSUB")
        )
        names = [f"t:{{app{number}}}:k" for number in range(30)]
        await asyncio.gather(*(store.put(name, b"v", ttl_ms=60_000) for name in names))
        lost = [name for name in names if own_cluster.holder(name) is deaf]
        kept = [name for name in names if name not in lost]
        assert lost
        assert kept
        deaf.kill()
        assert await asyncio.gather(*(store.get(name) for name in kept)) == [b"v"] * len(kept)
        with pytest.raises(StoreUnavailable):
            await store.get(lost[0])
        await until(lambda: len(gaps) == 2)
        started_s = time.monotonic()
        assert await asyncio.gather(*(store.get(name) for name in kept)) == [b"v"] * len(kept)
        assert time.monotonic() - started_s < 1.5  # a call of the dead node would take 2 s
        channel = next(name for name in (f"{{x{n}}}" for n in range(99)) if own_cluster.holder(name) is not deaf)
        store.listen(channel, heard.append, on_gap=lambda: gaps.append(2))
        await until(lambda: gaps[-1] == 2)
        await store.publish(channel, b"1")
        await until(lambda: heard == [b"1"])
        deaf.start()
        await answers(lambda: store.get(lost[0]))
    _nothing_left(store)


async def test_a_dead_cluster_is_unreachable(own_cluster: Cluster) -> None:
    """With all nodes dead, calls fail soon, for a store that knew them and for one that did not."""
    known = RedisStore(RedisSettings(url=own_cluster.url, mode="cluster", timeout_s=3.0))
    fresh = RedisStore(RedisSettings(url=own_cluster.url, mode="cluster", timeout_s=3.0))
    await known.get(KEY)
    for server in own_cluster.servers:
        server.kill()
    for store in (known, fresh):
        started_s = time.monotonic()
        results = await asyncio.gather(*(store.get(f"{{{n}}}") for n in range(300)), return_exceptions=True)
        assert {getattr(result, "detail", repr(result)) for result in results} == {"unreachable"}
        assert time.monotonic() - started_s < 5  # one after the other they would take 75 s
        await store.aclose()
        _nothing_left(store)
