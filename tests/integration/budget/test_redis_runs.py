"""Data that Redis loses, refuses or garbles under a scheduler costs one quiet window, but never exceeds the limit."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from service.budget.scheduler import shared as shared_scheduler
from service.budget.scheduler.interfaces import Begun, Lapsed, Ticked, TickRequest, WaitingCount
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from service.model.errors import StoreUnavailable
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.servers import BINARIES, Guarded, Server, eventually

RULES = Rules(calls=3, window_ms=60, transit_ms=30, ahead_ms=0, fetch_lease_ms=300)
KEYS = {name: f"t:{{shop}}:{name}" for name in ("slots", "tags", "reports", "flights", "shares", "order")}
WAITS = (WaitingCount(caller="a", weight=1.0, count=3, waited_ms=0),)


@pytest.fixture(scope="module", params=BINARIES)
def shared(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that keeps its data over a restart."""
    with Server("--appendonly", "yes", "--appendfsync", "always", binary=BINARIES[request.param]) as server:
        yield server


@pytest.fixture
def server(shared: Server) -> Server:
    shared.run("FLUSHALL")
    return shared


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisSettings(url=url, timeout_s=2.0, **settings))
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(server: Server) -> AsyncIterator[RedisStore]:
    async with opened(server.url) as store:
        yield store


def scheduler(store: RedisStore, replica: str = "r1") -> RedisScheduler:
    return RedisScheduler(store, prefix="t", app="shop", replica=replica, rules=RULES)


async def tick(replica: RedisScheduler) -> Ticked:
    return await replica.tick(TickRequest(waiting=WAITS))


async def begins(replica: RedisScheduler, *, block: str = "b") -> int:
    """Tick until there is a turn, and begin it."""
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        ticked = await tick(replica)
        for turn in ticked.turns:
            answer = await replica.begin(turn.id, block=block, known=b"")
            if answer == Begun():
                return turn.id
        await asyncio.sleep((ticked.due_in_ms or 0) / 1000)
    raise AssertionError("no turn in ten seconds")


async def is_quiet(replica: RedisScheduler) -> bool:
    """Whether all slots are taken for a whole window from now."""
    ticked = await tick(replica)
    return not ticked.turns and ticked.free == 0 and (ticked.due_in_ms or 0) >= RULES.transit_ms + RULES.window_ms // 2


async def test_only_a_loss_of_the_state_is_a_warning(server: Server, store: RedisStore) -> None:
    """Without any state a reset is a separate event; if this replica knows of one, Redis has lost it."""
    one = scheduler(store)
    with capture_logs() as logs:
        await tick(one)
        server.run("FLUSHALL")
        await tick(one)
    resets = [(each["cause"], each["log_level"]) for each in logs if each["event"] == "budget.reset"]
    assert resets == [("new", "info"), ("new", "warning")]


async def test_a_restart_that_keeps_the_data_takes_all_slots(server: Server, store: RedisStore) -> None:
    """Redis back with its data may have lost the last calls: one quiet window for all, and no earlier turn counts."""
    first, second = scheduler(store), scheduler(store, "r2")
    turn = await begins(first)
    assert (first.resets, second.resets) == (1, 0)
    server.restart()
    assert server.run("EXISTS", KEYS["slots"]) == 1
    with pytest.raises(StoreUnavailable):  # the connection was closed
        await tick(first)
    with capture_logs() as logs:
        assert await is_quiet(first)
    assert [entry["cause"] for entry in logs if entry["event"] == "budget.reset"] == ["run"]
    assert await second.begin(turn, block="b", known=b"") == Lapsed()
    assert (first.resets, second.resets) == (2, 0)
    await begins(first)


async def test_a_forgotten_script_is_a_new_run(server: Server, store: RedisStore) -> None:
    """SCRIPT FLUSH is indistinguishable from a restart, and costs the same quiet window."""
    replica = scheduler(store)
    await begins(replica)
    server.run("SCRIPT", "FLUSH")
    assert await is_quiet(replica)


async def test_lost_data_takes_all_slots(server: Server, store: RedisStore) -> None:
    """FLUSHALL and an evicted state take all slots for one quiet window."""
    replica = scheduler(store)
    for command in (("FLUSHALL",), ("DEL", KEYS["slots"])):
        await begins(replica)
        server.run(*command)
        assert await is_quiet(replica)


async def test_replicas_agree_on_a_run(store: RedisStore) -> None:
    """Later replicas find the run that the state has: they take no slot, and share the turns."""
    first = scheduler(store)
    await begins(first)
    others = [scheduler(store, f"r{number}") for number in range(2, 6)]
    for other in others:
        await tick(other)
    await begins(others[0], block="c")
    assert [other.resets for other in others] == [0, 0, 0, 0]


def another_release(store: RedisStore, replica: str) -> RedisScheduler:
    """A scheduler whose script has the same behaviour and a different text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_scheduler, "SOURCE", f"{shared_scheduler.SOURCE}\n-- another release\n")
        return scheduler(store, replica)


async def test_releases_with_other_scripts_share_a_run(store: RedisStore) -> None:
    """In a rollout both releases get turns, and neither mistakes the other's script for a restarted server."""
    old, new = scheduler(store), another_release(store, "r2")
    for _ in range(3):
        for replica, block in ((old, "old"), (new, "new")):
            turn = await begins(replica, block=block)
            await replica.done(turn, block=block, pause_ms=0, pause_reason="")
    assert (old.resets, new.resets) == (1, 0)


async def test_a_restart_is_detected_by_the_release_that_did_not_begin_the_run(
    server: Server, store: RedisStore
) -> None:
    """Whichever of two releases calls first detects that the server does not know the run, and takes all slots."""
    old, new = scheduler(store), another_release(store, "r2")
    await begins(old)
    await tick(new)
    server.restart()
    with pytest.raises(StoreUnavailable):  # the connection was closed
        await tick(new)
    assert await is_quiet(new)
    assert (old.resets, new.resets) == (1, 1)
    await begins(old)
    assert (old.resets, new.resets) == (1, 1)


async def test_a_failover_takes_all_slots() -> None:
    """The promoted replica has the data and not the script; going back to the first is a failover, too."""
    with Guarded() as guarded:
        async with opened(f"redis://127.0.0.1:{guarded.sentinel.port}", mode="sentinel") as store:
            replica = scheduler(store)
            await begins(replica)
            for number, server in enumerate((guarded.second, guarded.first)):
                eventually(lambda: _failed_over(guarded))
                eventually(lambda port=server.port: guarded.master_port() == port)  # type: ignore[misc]
                eventually(lambda server=server: server.run("ROLE")[0] == b"master")  # type: ignore[misc]
                async with asyncio.timeout(10):
                    while replica.resets == number + 1:
                        await asyncio.sleep(0.02)
                        with suppress(StoreUnavailable):
                            ticked = await tick(replica)
                assert ticked.free == 0
                assert ticked.turns == ()
                await begins(replica)


def _failed_over(guarded: Guarded) -> bool:
    try:
        return bool(guarded.sentinel.run("SENTINEL", "FAILOVER", "mymaster"))
    except Exception:  # noqa: BLE001 - not ready yet
        return False


GARBAGE = [
    ("SET", "garbage"),
    ("SET", msgspec.msgpack.encode([3, 1, 2])),
    ("HSET", "r9", "garbage"),
    ("HSET", "b", "garbage"),
    ("HSET", "b", msgspec.msgpack.encode([1, 10**15])),
    ("HSET", "r9", msgspec.msgpack.encode([10**15, 1, msgspec.msgpack.encode([["z", 1, 3, 0]])])),
    ("HSET", "a", "no number"),
    ("LPUSH", "x"),
]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("garbage", GARBAGE, ids=[f"{kind} {rest!r:.12}" for kind, *rest in GARBAGE])
async def test_garbage_heals_itself(server: Server, store: RedisStore, key: str, garbage: tuple[str, ...]) -> None:
    """With garbage under any of the keys, calls continue after at most one quiet window, without intervention."""
    replica = scheduler(store)
    await begins(replica)
    server.run("DEL", key)
    server.run(garbage[0], key, *garbage[1:])
    for block in ("b", "c", "d", "b"):
        await replica.done(await begins(replica, block=block), block=block, pause_ms=0, pause_reason="")
    assert replica.resets <= 3


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (9, 30 * 365 * 86_400_000),
        (9, "soon"),
        (1, -5),
        (5, float("nan")),
        (6, 1e300),
        (11, [[10**14, 0, 0, "", "", 0, 0, -1, ""]] * 3),
        (11, [["x"] * 9]),
        (11, 7),
    ],
)
async def test_a_nonsensical_state_is_replaced(server: Server, store: RedisStore, index: int, value: object) -> None:
    """A pause of thirty years or invalid counters are reported once, and calls continue."""
    replica = scheduler(store)
    await begins(replica)
    state = msgspec.msgpack.decode(server.run("GET", KEYS["slots"]))
    state[index] = value
    server.run("SET", KEYS["slots"], msgspec.msgpack.encode(state))
    with capture_logs() as logs:
        await begins(replica)
    assert [entry["event"] for entry in logs] == ["budget.reset"]


async def test_an_older_format_is_replaced_and_a_newer_one_left_alone(server: Server, store: RedisStore) -> None:
    """During an upgrade the newer release serves; the older one steps aside until that has been quiet for seconds."""
    replica = scheduler(store)
    await begins(replica)
    state = msgspec.msgpack.decode(server.run("GET", KEYS["slots"]))
    server.run("SET", KEYS["slots"], msgspec.msgpack.encode([1, *state[1:]]))
    assert await is_quiet(replica)
    newer = msgspec.msgpack.encode([4, 1, int(server.run("TIME")[0]) * 1000, "its-run", {"other": "things"}])
    server.run("SET", KEYS["slots"], newer)
    for other in (replica, scheduler(store, "r2")):
        with pytest.raises(StoreUnavailable) as caught:
            await tick(other)
        assert caught.value.detail == "newer release"
    assert server.run("GET", KEYS["slots"]) == newer
    scripts = server.run("INFO", "memory")["number_of_cached_scripts"]
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            await tick(replica)
    assert server.run("INFO", "memory")["number_of_cached_scripts"] == scripts
    old = msgspec.msgpack.encode([4, 1, int(server.run("TIME")[0]) * 1000 - 11_000, "its-run", {"other": "things"}])
    server.run("SET", KEYS["slots"], old)
    assert await is_quiet(replica)


async def test_turns_continue_if_redis_is_out_of_memory(server: Server, store: RedisStore) -> None:
    """With `noeviction` and a full memory the budget still works; only blocks are refused."""
    replica = scheduler(store)
    await begins(replica)
    server.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.run("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StoreUnavailable) as caught:
        await store.put("t:{shop}:b:1", b"1", ttl_ms=1000)
    assert caught.value.detail == "out of memory"
    await replica.done(await begins(replica, block="c"), block="c", pause_ms=0, pause_reason="")
    server.run("CONFIG", "SET", "maxmemory", "0")


async def test_the_text_of_a_refusal_by_redis_is_logged(server: Server) -> None:
    """A missing permission is named in the log, once; it does not count as a loss of the state."""
    server.run("ACL", "SETUSER", "gate", "on", ">right", "~*", "&*", "+@all", "-time")
    with capture_logs() as logs:
        async with opened(f"redis://gate:right@127.0.0.1:{server.port}") as store:
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await tick(scheduler(store))
    [refused] = [entry for entry in logs if entry["event"] == "store.refused"]
    assert "time" in refused["answer"] or "can't run this command" in refused["answer"]  # Valkey names it


async def test_the_documented_user_has_the_necessary_rights(server: Server) -> None:
    """The ACL line in docs/deploying.md is enough for a scheduler, and allows nothing beyond the prefix."""
    text = (Path(__file__).parents[3] / "docs" / "deploying.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("ACL SETUSER")]
    words = [word.replace("taskgate:", "t:").replace("PASSWORD", "right") for word in line.split()]
    server.run(*words)
    async with opened(f"redis://taskgate:right@127.0.0.1:{server.port}") as store:
        replica = scheduler(store)
        block = "t:{shop}:b:1"
        await replica.done(await begins(replica, block=block), block=block, pause_ms=0, pause_reason="")
        await store.put(block, b"1", ttl_ms=10_000)
        assert await store.get(block) == b"1"
        assert await store.delete_matching("t:{shop}:b:") == 1
        with pytest.raises(StoreUnavailable):
            await store.get("other:{shop}:b:1")
