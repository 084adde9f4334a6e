"""What one client can do to the others: thousands of idle connections, requests of one caller, or queries in Redis."""

import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.sandbox.serving import Sandbox, sandbox_upstream
from service.sandbox.upstream import SandboxOptions
from tests.integration.callers.mounted import APP, OTHER_APP, PAGE, Mounted, mounted
from tests.scenes.fleet import key_of
from tests.servers import Server
from tests.settings import hashed

pytestmark = [pytest.mark.long, pytest.mark.scene]

IDLE = 10_000
GREEDY = 5000
FLOOD = Path(__file__).with_name("flood.py")


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """As many connections as the machine allows, here and in child processes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def mount(tmp_path: Path, valkey: Server, sandbox: Sandbox) -> Mounted:
    return Mounted(tmp_path, valkey=valkey, sandbox=sandbox)


def memory_mb(mount: Mounted) -> float:
    process = mount.replica.process
    assert process is not None
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def p99(times_s: list[float]) -> float:
    return statistics.quantiles(times_s, n=100)[98]


async def held(port: int, head: bytes) -> list[asyncio.StreamWriter]:
    """Connections on which nothing more is sent, opened fifty at a time."""
    writers = []
    for _ in range(IDLE // 50):
        opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(50)))
        writers += [writer for _, writer in opened]
        for _, writer in opened:
            writer.write(head)
    return writers


@pytest.mark.parametrize("head", [b"", b"GET /tasks HTTP/1.1\r\nHost: "], ids=["silent", "half a head"])
async def test_idle_connections_delay_nobody_and_are_closed(mount: Mounted, head: bytes) -> None:
    """10,000 connections that send nothing, or half a head: others are served in time, memory grows little, and after
    their timeout they are closed."""
    bounds = {"headers_timeout_s": 20, "idle_timeout_s": 20, "connections_max": IDLE + 100}
    mount.put("c", server={"log_format": "json"} | bounds)
    async with mounted(mount):
        assert (await mount.ask(key_of("c"))).status == 200
        before_mb = memory_mb(mount)
        writers = await held(mount.replica.port, head)
        answers = [await mount.ask(key_of("c")) for _ in range(200)]
        grown_mb = memory_mb(mount) - before_mb
        print(f"\nidle: p99 {p99([each.took_s for each in answers]) * 1000:.1f} ms, {grown_mb:.0f} MB more")
        assert {answer.status for answer in answers} == {200}
        assert p99([answer.took_s for answer in answers]) < 0.25
        assert grown_mb < 300
        process = mount.replica.process
        assert process is not None
        async with asyncio.timeout(30):
            while len(os.listdir(f"/proc/{process.pid}/fd")) > 200:
                await asyncio.sleep(0.2)
        for writer in writers:
            writer.close()


async def test_more_connections_than_allowed_wait(mount: Mounted) -> None:
    """Beyond connections_max a connection waits to be accepted, and is served when idle ones have been closed."""
    mount.put("c", server={"log_format": "json", "headers_timeout_s": 2, "connections_max": 50})
    async with mounted(mount):
        writers = [(await asyncio.open_connection("127.0.0.1", mount.replica.port))[1] for _ in range(100)]
        answer = await mount.ask(key_of("c"))
        assert answer.status == 200
        assert 0.5 < answer.took_s < 10
        for writer in writers:
            writer.close()


async def test_one_caller_floods_and_another_is_served(mount: Mounted) -> None:
    """5,000 requests of one caller at once, each for a query of its own: requests beyond its bound are refused, and
    a caller with few requests gets pages from memory and turns."""
    mount.put("greedy", "normal", server={"log_format": "json", "connections_max": GREEDY + 100})
    async with mounted(mount):
        assert (await mount.ask(key_of("normal"))).status == 200
        command = (str(FLOOD), str(mount.replica.port), key_of("greedy"), f"/tasks?app={APP}&q=greedy", str(GREEDY))
        flood = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        hits_s, turns_s = [], []
        end_s = time.monotonic() + 15
        while time.monotonic() < end_s:
            hits_s.append((await mount.ask(key_of("normal"))).took_s)
            if len(hits_s) % 20 == 0:
                page = await mount.ask(key_of("normal"), f"{PAGE}&q=normal{len(hits_s)}", {"Prefer": "wait=20"})
                assert page.status == 200
                turns_s.append(page.took_s)
            await asyncio.sleep(0.02)
        statuses = json.loads((await flood.communicate())[0])
        print(f"\nflood: {statuses}; of {len(hits_s)} hits the worst {max(hits_s) * 1000:.0f} ms,")
        print(f"p50 {statistics.median(hits_s) * 1000:.1f} p99 {p99(hits_s) * 1000:.1f} ms")
        print(f"turns p50 {statistics.median(turns_s):.2f} most {max(turns_s):.2f} s of {len(turns_s)}")
        assert sum(statuses.values()) == GREEDY
        assert set(statuses) <= {"200", "429", "503"}
        assert statuses.get("200", 0) > 50
        assert p99(hits_s) < 1.0
        assert max(turns_s) < 3.0


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
async def test_thousands_of_queries_do_not_evict_the_pages_of_others(
    tmp_path: Path, own_valkey: Server, policy: str
) -> None:
    """2,000 lists of one caller, 19 MB, into 12 MB of Redis: another app's and another caller's pages stay stored, and
    are served from Redis by a replica that has not seen them."""
    own_valkey.run("CONFIG", "SET", "maxmemory", "12mb")
    own_valkey.run("CONFIG", "SET", "maxmemory-policy", policy)
    callers = {name: {"keys": [hashed(key_of(name))], "apps": [APP, OTHER_APP]} for name in ("greedy", "normal")}
    others = [f"/tasks?app={app}&limit=1&q=normal{number}" for number in range(5) for app in (APP, OTHER_APP)]
    async with sandbox_upstream(SandboxOptions(calls=50)) as sandbox:
        mount = Mounted(tmp_path, valkey=own_valkey, sandbox=sandbox)
        redis = {"url": own_valkey.url, "timeout_s": 5.0}
        cache = {"caller_blocks_max": 200, "block_size": 20, "fresh_s": 3600.0, "settled_s": 3600.0}
        mount.put(callers=callers, budget={"calls": 50, "waiting_max": 100}, cache=cache, redis=redis)
        async with mounted(mount):
            for path in others:
                assert (await mount.ask(key_of("normal"), path)).status == 200

            async def reads(numbers: range) -> None:
                for number in numbers:
                    path = f"/tasks?app={APP}&limit=1&since=-PT{1_000_000 + number}S"
                    assert (await mount.ask(key_of("greedy"), path, {"Prefer": "wait=30"})).status == 200

            await asyncio.gather(*(reads(range(first, 2000, 20)) for first in range(20)))
            assert len(mount.events("cache.caller_over_bound")) == 1
            assert not mount.events("cache.not_stored")
            used = own_valkey.run("INFO", "memory")["used_memory"]
            assert int(own_valkey.run("INFO", "stats")["evicted_keys"]) == 0
            print(f"\n{policy}: {used / 1e6:.1f} MB used in Redis")
        async with mounted(mount):
            for path in others:
                page = await mount.ask(key_of("normal"), path, {"Cache-Control": "only-if-cached"})
                assert page.status == 200, path
