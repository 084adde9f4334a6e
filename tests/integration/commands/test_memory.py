"""Memory is bounded by settings: each bound is reached in a process with the chart's memory limit, above which it would
be killed."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from service.configuration.memory import KIB, MIB, memory_model, total_bytes
from tests.integration.telemetry.scraping import scraped
from tests.scenes.fleet import APP, PRESENT, Replica, fleet, get, key_of, path
from tests.servers import Server, until
from tests.settings import settings_of

CHART_LIMIT_BYTES = 384 * MIB


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit on files for the sockets of this test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 16_384), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def rss_bytes(pid: int) -> int:
    """The resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def unread(port: int, target: str, fields: str = "") -> socket.socket:
    """A connection that sends a request and never reads the response."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", port))
    with suppress(ConnectionError):
        connection.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
    return connection


async def test_slow_readers_do_not_exceed_the_memory_limit(own_valkey: Server, many_files: None) -> None:
    """With too many unread files, unread streams, silent connections and incomplete heads, the process stays within
    the chart's limit, answers probes and callers meanwhile, and releases memory when they have disconnected."""
    weights = {"reader": 1, "other": 1}
    async with fleet(own_valkey, replicas=1, release=PRESENT, weights=weights, budget={"waiting_max": 1500}) as at:
        replica = at.replicas[0]
        resource.prlimit(replica.pid, resource.RLIMIT_DATA, (CHART_LIMIT_BYTES, CHART_LIMIT_BYTES))
        page = (await get(replica.port, "/docs")).body.decode()
        script = next(part for part in page.split('"') if part.endswith(".js") and "scalar" in part).rpartition("/")[2]
        key = f"Authorization: Bearer {key_of('reader')}\r\n"
        stream = f"{key}Accept: application/x-ndjson\r\n"
        assert (await at.ask(0, path(), caller="other")).status == 200
        idle_bytes = rss_bytes(replica.pid)
        with ExitStack() as sockets:
            for kind in range(4 * 800):
                match kind % 4:
                    case 0:
                        each = unread(replica.port, f"/docs/{script}", "Accept-Encoding: identity\r\n")
                    case 1:
                        each = unread(replica.port, f"/tasks?app={APP.name}", stream)
                    case 2:
                        each = socket.create_connection(("127.0.0.1", replica.port))
                    case _:
                        each = unread(replica.port, "/livez", "X: " + "x" * 60_000)
                sockets.enter_context(each)
                if kind % 100 == 0:
                    await asyncio.sleep(0)
                    assert (await get(replica.metrics_port, "/livez")).status == 200
            assert (await get(replica.metrics_port, "/readyz")).status == 200
            assert replica.process is not None
            assert replica.process.poll() is None, replica.log()[-2000:]
            full_bytes = rss_bytes(replica.pid)
        assert full_bytes < CHART_LIMIT_BYTES
        await until(lambda: rss_bytes(replica.pid) < idle_bytes + (full_bytes - idle_bytes) * 0.75, within_s=60)
        assert (await at.ask(0, path(), caller="other")).status == 200
        assert "Traceback" not in replica.log()


async def all_stuck(replica: Replica, watches: int) -> None:
    """Wait until this many watches are open and stalled."""
    sent = -1.0
    async with asyncio.timeout(90):
        while True:
            scrape = await scraped(replica.metrics_port)
            before, sent = sent, scrape.sum("taskgate_watch_events_total", event="task")
            if scrape.sum("taskgate_watchers") == watches and sent == before > 25 * watches:
                return
            await asyncio.sleep(0.5)


async def test_an_unread_watch_holds_only_a_few_tasks(own_valkey: Server, many_files: None) -> None:
    """An unread watch of a long list costs a few of its tasks, not a block of them."""
    watches = 300
    async with fleet(own_valkey, replicas=1, release=PRESENT, weights={"reader": 1}) as at:
        replica = at.replicas[0]
        fields = f"Authorization: Bearer {key_of('reader')}\r\nAccept: text/event-stream\r\n"
        with ExitStack() as sockets:
            sockets.enter_context(unread(replica.port, f"/tasks?app={APP.name}", fields))
            await all_stuck(replica, 1)
            one_bytes = rss_bytes(replica.pid)
            for _ in range(watches):
                sockets.enter_context(unread(replica.port, f"/tasks?app={APP.name}", fields))
            await all_stuck(replica, watches + 1)
            assert rss_bytes(replica.pid) - one_bytes < watches * 60 * KIB


def test_the_defaults_fit_into_the_charts_limit() -> None:
    """The sum of the bounds at every default is less than what the chart allows a replica."""
    settings = settings_of()
    assert total_bytes(memory_model(settings)) < CHART_LIMIT_BYTES
    values = (Path(__file__).parents[3] / "helm" / "values.yaml").read_text()
    assert f"limits: {{memory: {CHART_LIMIT_BYTES // MIB}Mi}}" in values
    documented = (Path(__file__).parents[3] / "docs" / "memory.md").read_text()
    assert f"**{total_bytes(memory_model(settings)) // MIB} MiB**" in documented
