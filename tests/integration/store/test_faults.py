"""Faults of one server: each has its own detail, no call waits long, and nothing is leaked."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import redis
from structlog.testing import capture_logs

from service.model.errors import StoreUnavailable
from service.settings import RedisSettings
from service.store.redis_store import RedisStore
from tests.integration.store.answering import answers
from tests.servers import Server, eventually, until

INCREMENT = "return {redis.call('INCR', KEYS[1])}"
KEY = "t:{a}:k"
TIMEOUT_S = 0.25
"""The default of `redis.timeout_s`."""


@pytest.fixture
async def store(own_valkey: Server) -> AsyncIterator[RedisStore]:
    """A store that a busy machine does not mistake its server for a frozen one."""
    async with _store(own_valkey.url) as store:
        yield store


@pytest.fixture
async def hasty_store(own_valkey: Server) -> AsyncIterator[RedisStore]:
    """A store with the default time-out, connected."""
    async with _store(own_valkey.url, timeout_s=TIMEOUT_S) as store:
        await answers(lambda: store.get(KEY))
        yield store


@asynccontextmanager
async def _store(url: str, *, password: str | None = None, timeout_s: float = 5.0) -> AsyncIterator[RedisStore]:
    store = RedisStore(RedisSettings(url=url, connections=8, timeout_s=timeout_s), password=password)
    yield store
    await store.aclose()
    assert store.open_connections == 0
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("store")] == []


async def detail_of(call: Awaitable[object]) -> str:
    with pytest.raises(StoreUnavailable) as caught:
        await call
    return caught.value.detail


async def test_a_killed_server_is_unreachable_and_found_again(store: RedisStore, own_valkey: Server) -> None:
    """After kill -9 calls fail as unreachable; they succeed soon after its return without data."""
    script = store.script(INCREMENT)
    assert await script([KEY], []) == [1]
    own_valkey.kill()
    assert await detail_of(script([KEY], [])) == "unreachable"
    assert await detail_of(store.get(KEY)) == "unreachable"
    await asyncio.sleep(0.5)
    own_valkey.start()
    await answers(lambda: script([KEY], []), within_s=5.0)
    assert await script([KEY], []) == [2]


async def test_a_restart_between_calls_costs_no_call(store: RedisStore, own_valkey: Server) -> None:
    """Idle connections that died cost no call: they are replaced before use."""
    script = store.script(INCREMENT)
    await asyncio.gather(*(script([KEY], []) for _ in range(8)))
    own_valkey.restart()
    await asyncio.sleep(0.05)
    assert await script([KEY], []) == [1]
    assert await store.get(KEY) == b"1"


async def test_a_frozen_server_delays_few_calls(hasty_store: RedisStore, own_valkey: Server) -> None:
    """With the server stopped, the first calls time out, and 3,000 more do not wait that long each; of those that
    follow one another, only one every 0.2 s is tried. After its return calls succeed. Connections stay within their
    bound.
    """
    own_valkey.run("SET", KEY, b"v")
    own_valkey.freeze()
    started_s = time.monotonic()
    assert await detail_of(hasty_store.get(KEY)) == "timed out"
    assert 0.2 < time.monotonic() - started_s < 4  # redis-py's own time-out is 5 s
    started_s = time.monotonic()
    faults = await asyncio.gather(*(hasty_store.get(KEY) for _ in range(3000)), return_exceptions=True)
    assert all(isinstance(fault, StoreUnavailable) for fault in faults)
    assert time.monotonic() - started_s < 20  # in turns of 8 connections they would take 90 s
    await most_are_refused_untried(hasty_store)
    own_valkey.thaw()
    await answers(lambda: hasty_store.get(KEY), within_s=5.0)
    async with _store(own_valkey.url) as store:
        assert await asyncio.gather(*(store.get(KEY) for _ in range(50))) == [b"v"] * 50
        assert own_valkey.connections() <= 8 + hasty_store.open_connections <= 8 + 8


async def most_are_refused_untried(store: RedisStore) -> None:
    """Make calls one after the other until fifty were refused without being sent."""
    refused = tried = 0
    started_s = time.monotonic()
    while refused < 50:
        with pytest.raises(StoreUnavailable, match="timed out") as caught:
            await store.get(KEY)
        tried += caught.value.__cause__ is not None
        refused += caught.value.__cause__ is None
        spent_s = time.monotonic() - started_s
        assert spent_s < 10, "each waits"
        assert tried <= spent_s / (0.2 + TIMEOUT_S) + 1
        await asyncio.sleep(0.01)


async def test_a_script_is_never_repeated(hasty_store: RedisStore, own_valkey: Server) -> None:
    """A script whose answer was late ran only once."""
    source = "redis.call('INCR', KEYS[1]) local i = 0 while i < 6e7 do i = i + 1 end return {1}"
    own_valkey.run("SCRIPT", "LOAD", source)
    assert await detail_of(hasty_store.script(source)([KEY], [])) in {"timed out", "busy"}
    await answers(lambda: hasty_store.get(KEY))
    assert own_valkey.run("GET", KEY) == b"1"


async def test_a_forgotten_script_is_loaded_again(store: RedisStore, own_valkey: Server) -> None:
    """SCRIPT FLUSH is not noticed by callers."""
    script = store.script(INCREMENT)
    await script([KEY], [])
    own_valkey.run("SCRIPT", "FLUSH")
    assert await script([KEY], []) == [2]


async def test_after_flushall_nothing_is_stored(store: RedisStore, own_valkey: Server) -> None:
    """After FLUSHALL a key has no value, and scripts start again."""
    await store.put(KEY, b"v", ttl_ms=60_000)
    own_valkey.run("FLUSHALL")
    assert await store.get(KEY) is None
    assert await store.script(INCREMENT)([KEY], []) == [1]


async def test_out_of_memory_is_reported(store: RedisStore, own_valkey: Server) -> None:
    """If the server is out of memory, writes and scripts fail with that detail, and reads succeed."""
    await store.put(KEY, b"v", ttl_ms=60_000)
    own_valkey.run("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_valkey.run("CONFIG", "SET", "maxmemory", "1")
    assert await detail_of(store.put(KEY, b"w", ttl_ms=60_000)) == "out of memory"
    assert await detail_of(store.script(INCREMENT)(["t:{a}:n"], [])) == "out of memory"
    assert await store.get(KEY) == b"v"
    own_valkey.run("CONFIG", "SET", "maxmemory", "0")
    await store.put(KEY, b"w", ttl_ms=60_000)


async def test_a_replica_is_read_only(store: RedisStore, own_valkey: Server) -> None:
    """Writes and scripts on a replica are refused as read-only."""
    with Server("--replicaof", "127.0.0.1", str(own_valkey.port)) as replica:
        async with _store(replica.url) as on_replica:
            assert await detail_of(on_replica.put(KEY, b"v", ttl_ms=1000)) == "read-only"
            assert await detail_of(on_replica.script(INCREMENT)([KEY], [])) == "read-only"


async def test_commands_without_permission_are_refused(own_valkey: Server) -> None:
    """If the user may not run scripts, they are refused and reads succeed; a wrong password is refused, too."""
    own_valkey.run("ACL", "SETUSER", "gate", "on", ">right", "~*", "&*", "+@all", "-@scripting")
    url = f"redis://gate@127.0.0.1:{own_valkey.port}"
    async with _store(url, password="right") as store:
        assert await detail_of(store.script(INCREMENT)([KEY], [])) == "refused"
        assert await store.get(KEY) is None
    async with _store(url, password="wrong") as store:
        with capture_logs() as logs:
            for _ in range(3):
                assert await detail_of(store.get(KEY)) == "refused"
    (refused,) = [entry for entry in logs if entry["event"] == "store.refused"]
    assert "WRONGPASS" in refused["answer"] or "invalid username-password pair" in refused["answer"]
    assert "wrong" not in refused["answer"].replace("WRONGPASS", "")


async def test_a_server_without_free_connections_refuses(store: RedisStore, own_valkey: Server) -> None:
    """A server at its limit of clients refuses, and serves when one has left."""
    own_valkey.run("CONFIG", "SET", "maxclients", "1")
    async with _store(own_valkey.url) as other:
        await other.get(KEY)
        assert await detail_of(store.get(KEY)) in {"refused", "unreachable"}
    await answers(lambda: store.get(KEY), within_s=5.0)


@asynccontextmanager
async def speaking(talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """The URL of a server made by the test; its clients must have disconnected at the end."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with suppress(ConnectionError):
            await talk(reader, writer)
            writer.close()
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await until(lambda: all(task is None or task.done() for task in tasks))


async def _listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.fixture
async def silent_url() -> AsyncIterator[str]:
    """The URL of a socket that accepts connections and never replies."""
    async with speaking(_listen_only) as url:
        yield url


@pytest.mark.parametrize("password", [None, "secret"])
async def test_a_socket_that_never_answers_is_timed_out(silent_url: str, password: str | None) -> None:
    """A server that accepts connections and never replies costs one time-out, also if it does not reply to the
    password."""
    async with _store(silent_url, password=password, timeout_s=1.0) as store:
        started_s = time.monotonic()
        assert await detail_of(store.get(KEY)) == "timed out"
        assert 0.9 < time.monotonic() - started_s < 1.9
        assert store.open_connections == 0


class Hanger:
    """Speaks just enough RESP: answers `first`, hangs up on the first other command, and answers nil from then on."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.read(4096):
            if b"first" in request:
                writer.write(b"+PONG\r\n")
                continue
            self.seen.append(request)
            if len(self.seen) == 1:
                return
            writer.write(b"$-1\r\n")


async def test_only_reads_are_retried() -> None:
    """If an idle connection breaks in the middle of a call, a read is sent once more, a script or put is not."""
    calls: tuple[Callable[[RedisStore], Awaitable[object]], ...] = (
        lambda store: store.script(INCREMENT)([KEY], []),
        lambda store: store.put(KEY, b"v", ttl_ms=1000),
    )
    for call in calls:
        hanger = Hanger()
        async with speaking(hanger.talk) as url, _store(url) as store:
            await store.get("first")
            assert await detail_of(call(store)) == "unreachable"
            await store.get("first")
        assert len(hanger.seen) == 1
    hanger = Hanger()
    async with speaking(hanger.talk) as url, _store(url) as store:
        await store.get("first")
        assert await store.get(KEY) is None
    assert len(hanger.seen) == 2


async def test_garbage_is_a_broken_answer() -> None:
    """A server that does not speak RESP is reported as a broken answer."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with speaking(talk) as url, _store(url) as store:
        assert await detail_of(store.get(KEY)) == "broken answer"


async def test_calls_beyond_the_pool_are_refused_if_they_wait_too_long(silent_url: str) -> None:
    """Of 500 concurrent calls to a silent server, all fail as busy or timed out; eight at a time they would take 16
    seconds."""
    async with _store(silent_url, timeout_s=TIMEOUT_S) as store:
        started_s = time.monotonic()
        faults = await asyncio.gather(*(store.get(KEY) for _ in range(500)), return_exceptions=True)
        assert {str(getattr(fault, "detail", fault)) for fault in faults} <= {"busy", "timed out"}
        assert time.monotonic() - started_s < 8


async def test_a_busy_server_is_reported(store: RedisStore, own_valkey: Server) -> None:
    """While another client's script blocks the server, calls fail as busy; they succeed when it has ended."""
    own_valkey.run("CONFIG", "SET", "busy-reply-threshold", "50")
    await store.get(KEY)
    endless = asyncio.create_task(asyncio.to_thread(_run_endless, own_valkey))
    await asyncio.to_thread(eventually, lambda: _is_busy(own_valkey))
    assert await detail_of(store.get(KEY)) == "busy"
    own_valkey.run("SCRIPT", "KILL")
    await endless
    await answers(lambda: store.get(KEY), within_s=5.0)


def _is_busy(server: Server) -> bool:
    try:
        server.run("GET", KEY)
    except redis.ResponseError:
        return True
    return False


def _run_endless(server: Server) -> None:
    with pytest.raises(Exception, match="kill"):
        server.run("EVAL", "while true do end", 0)


async def test_listening_resumes_after_a_restart(store: RedisStore, own_valkey: Server) -> None:
    """After kill -9 and a restart the gap is reported, and later messages are received."""
    heard: list[bytes] = []
    gaps: list[int] = []
    store.listen("t:c", heard.append, on_gap=lambda: gaps.append(1))
    await until(lambda: len(gaps) == 1)
    own_valkey.kill()
    await asyncio.sleep(0.3)
    own_valkey.start()
    await until(lambda: len(gaps) == 2, within_s=5.0)
    await store.publish("t:c", b"again")
    await until(lambda: heard == [b"again"])


async def test_a_listener_detects_a_frozen_server(own_valkey: Server) -> None:
    """With the server stopped for longer than the listener accepts, the connection is closed, and its return is a
    gap."""
    gaps: list[int] = []
    async with _store(own_valkey.url, timeout_s=TIMEOUT_S) as store:
        store.listen("t:c", lambda _: None, on_gap=lambda: gaps.append(1))
        await until(lambda: bool(gaps))
        own_valkey.freeze()
        await until(lambda: store.open_connections == 0)
        gaps.clear()
        own_valkey.thaw()
        await until(lambda: bool(gaps))


async def test_a_quiet_channel_stays_open(own_valkey: Server) -> None:
    """A channel without messages for longer than the listener's timeout keeps its connection, and no gap is
    reported."""
    gaps: list[int] = []
    async with _store(own_valkey.url, timeout_s=1.0) as store:
        store.listen("t:c", lambda _: None, on_gap=lambda: gaps.append(1))
        await until(lambda: len(gaps) == 1)
        await asyncio.sleep(2.5)
        assert len(gaps) == 1
        assert own_valkey.connections() == 1


async def test_a_failing_handler_does_not_affect_others(store: RedisStore, own_valkey: Server) -> None:
    """A handler that raises is reported by the event loop, and the others keep receiving messages."""
    reported: list[object] = []
    heard: list[bytes] = []
    begun: list[int] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def fail(message: bytes) -> None:
        raise ValueError(message)

    store.listen("t:c", fail)
    store.listen("t:c", heard.append, on_gap=lambda: begun.append(1))
    await until(lambda: bool(begun))
    await store.publish("t:c", b"1")
    await store.publish("t:c", b"2")
    await until(lambda: heard == [b"1", b"2"])
    assert [type(exc) for exc in reported] == [ValueError, ValueError]
