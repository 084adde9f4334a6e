"""One app's upstream delays no other app: names, connections, files."""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from service.callers.issuer import KeySourceFailed
from service.callers.sources import FileKeySource, UrlKeySource
from service.configuration.watch import ConfigurationWatcher
from service.http_client.resolver import Resolver
from service.model.errors import UpstreamError, UpstreamUnreachable
from service.model.queries import At, Query, Range
from service.model.tasks import Listing
from service.settings import UpstreamSettings
from service.upstream.apps import UpstreamApp
from service.upstream.client import UpstreamClient
from service.upstream.secret import CHECK_EVERY_S, FileSecret
from service.upstream.signer import Signer
from tests.integration.upstream.bench import SECRET, Bench, Connection, raw
from tests.settings import settings_of


class FixedSecret:
    """A secret that is available."""

    def read(self, now_s: float) -> bytes:
        del now_s
        return SECRET.encode()


class Names:
    """Manual lookups: each name has its addresses, or hangs until `go`."""

    def __init__(self) -> None:
        self.hanging: set[str] = set()
        self.failing: set[str] = set()
        self.asked: list[str] = []
        self.go = threading.Event()

    def look_up(self, host: str, port: int) -> tuple[str, ...]:
        del port
        self.asked.append(host)
        if host in self.hanging:
            self.go.wait(30)
        if host in self.failing:
            raise OSError("no such name")
        return ("127.0.0.1",)


@pytest.fixture
def names() -> Iterator[Names]:
    """All names resolve to this machine."""
    names = Names()
    yield names
    names.go.set()


class Apps:
    """A client for two apps, `sick` and `well`, each with its own host name."""

    def __init__(self, bench: Bench, names: Names, *, one_host: bool = False, **settings: object) -> None:
        self.apps = {
            name: UpstreamApp(
                name=name,
                sdkappid=88888888,
                admin="admin",
                hosts=(f"http://{'one' if one_host else name}.test:{bench.port}",),
            )
            for name in ("sick", "well")
        }
        bounds = {"connect_timeout_s": 0.3, "read_timeout_s": 0.5, "call_timeout_s": 1.0, **settings}
        self.client = UpstreamClient(
            UpstreamSettings(**bounds),  # type: ignore[arg-type]
            signers=[Signer(app, FixedSecret(), valid_s=86_400) for app in self.apps.values()],
            resolver=Resolver(lookup=names.look_up),
        )

    async def fetch(self, name: str) -> Listing:
        query = Query(app=name, since=At(epoch_s=0), until=At(epoch_s=86_400))
        range_ = Range(since_s=0, until_s=86_400)
        return await self.client.fetch(self.apps[name], query, range_, offset=0, want=20, before_send=_at_once)


async def _at_once() -> None:
    """Do nothing."""


async def test_a_slow_lookup_does_not_delay_other_apps(bench: Bench, names: Names) -> None:
    """Thirty calls of one app wait for its name; the other app's calls are answered meanwhile, by one thread more."""
    names.hanging.add("sick.test")
    apps = Apps(bench, names, connections=30, connect_timeout_s=2.0, call_timeout_s=3.0)
    async with aclosing(apps.client):
        sick = [asyncio.create_task(apps.fetch("sick")) for _ in range(30)]
        await asyncio.sleep(0)
        for _ in range(12):
            assert (await apps.fetch("well")).total == 1
        assert not any(task.done() for task in sick)
        results = await asyncio.gather(*sick, return_exceptions=True)
        assert all(isinstance(result, UpstreamUnreachable) for result in results)
        assert names.asked.count("sick.test") == 1
        names.go.set()


async def test_the_last_good_answer_serves_while_lookups_hang_or_fail(bench: Bench, names: Names) -> None:
    """A name that was resolved once is called although the resolver is failing."""
    bench.upstream.scene = raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
    apps = Apps(bench, names, connect_timeout_s=2.0, call_timeout_s=3.0)
    async with aclosing(apps.client):
        for trouble in (set(), names.hanging, names.failing):
            trouble.add("well.test")
            with pytest.raises(UpstreamError, match="ErrorCode"):
                await apps.fetch("well")
        assert len(bench.upstream.requests) == 3
        names.go.set()


async def test_calls_succeed_once_a_hanging_lookup_ends(bench: Bench, names: Names) -> None:
    """Calls fail while the first lookup hangs, and succeed once it has ended, without another one."""
    names.hanging.add("sick.test")
    apps = Apps(bench, names)
    async with aclosing(apps.client):
        with pytest.raises(UpstreamUnreachable, match="in time"):
            await apps.fetch("sick")
        names.go.set()
        async with asyncio.timeout(20):
            while True:
                try:
                    assert (await apps.fetch("sick")).total == 1
                    break
                except UpstreamUnreachable:
                    await asyncio.sleep(0.01)


async def test_an_unresolvable_name_is_reported_at_once(bench: Bench, names: Names) -> None:
    """An unresolvable name is reported at once, and looked up again by the next call."""
    names.failing.add("sick.test")
    apps = Apps(bench, names)
    async with aclosing(apps.client):
        for _ in range(2):
            with pytest.raises(UpstreamUnreachable, match="could not be resolved"):
                await apps.fetch("sick")
        names.failing.clear()
        assert (await apps.fetch("sick")).total == 1


async def test_hanging_calls_occupy_only_the_connections_of_their_app(bench: Bench, names: Names) -> None:
    """One app's hanging calls occupy only its own connections, on one and the same host, and its answers stay there."""
    hanging = asyncio.Event()

    async def play(connection: Connection) -> None:
        while request := await connection.request():
            if b"Host: one.test" in request and not hanging.is_set():
                hanging.set()
                await connection.until_closed()
            elif bench.upstream.requests.index(request) < 2:
                await connection.until_closed()
            else:
                await connection.answer(b'{"ErrorCode": 0, "Total": 0, "Tasks": []}')

    bench.upstream.scene = play
    apps = Apps(bench, names, one_host=True, connections=2, read_timeout_s=2.0, call_timeout_s=3.0)
    async with aclosing(apps.client):
        sick = [asyncio.create_task(apps.fetch("sick")) for _ in range(2)]
        async with asyncio.timeout(20):
            while len(bench.upstream.requests) < 2:
                await asyncio.sleep(0.01)
        with pytest.raises(UpstreamUnreachable, match="no connection was free"):
            await apps.fetch("sick")
        for _ in range(5):
            assert (await apps.fetch("well")).total == 0
        assert bench.upstream.connections == 3
        await asyncio.gather(*sick, return_exceptions=True)


async def test_apps_share_no_connection(bench: Bench, names: Names) -> None:
    """Apps with the same host do not share a connection."""
    apps = Apps(bench, names, one_host=True)
    async with aclosing(apps.client):
        for name in ("sick", "well", "sick", "well"):
            assert (await apps.fetch(name)).total == 1
    assert bench.upstream.connections == 2


def replaced_by_a_pipe(file: Path) -> None:
    """Replace a file by a pipe: any reader that opens it hangs until it is written to."""
    pipe = file.with_name("pipe")
    os.mkfifo(pipe)
    pipe.replace(file)


def release(*files: Path) -> None:
    """Release the readers that hang in pipes."""
    for file in files:
        while True:
            try:
                os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:  # nobody hangs there
                break
            time.sleep(0.01)


def test_a_hanging_secret_file_keeps_the_last_secret(tmp_path: Path) -> None:
    """While the file hangs, the last valid secret stays in use, no call waits, and no second check begins."""
    file = tmp_path / "secret"
    file.write_text(SECRET)
    secret = FileSecret(str(file))
    assert secret.read(0.0) == SECRET.encode()
    before = threading.active_count()
    replaced_by_a_pipe(file)
    began_s = time.monotonic()
    for look in range(1, 50):
        assert secret.read(look * CHECK_EVERY_S) == SECRET.encode()
    assert time.monotonic() - began_s < 5  # a wait of 0.2 s for each would take twice as long
    assert threading.active_count() == before + 1
    release(file)


async def test_hanging_files_and_urls_occupy_no_shared_thread(
    tmp_path: Path, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Configurations, JWKS files and JWKS hosts that hang occupy none of the shared threads."""
    monkeypatch.setattr("service.http_client.resolver.look_up", names.look_up)
    names.hanging.add("keys.test")
    files, hanging = [], []
    for number in range(12):
        file = tmp_path / str(number) / "taskgate.yaml"
        file.parent.mkdir()
        file.write_text("{}")
        watcher = ConfigurationWatcher(str(file), {}, running=settings_of(), apply=pytest.fail)
        replaced_by_a_pipe(file)
        files.append(file)
        hanging += [watcher.check(), FileKeySource(str(file)).read()]
        hanging.append(UrlKeySource("http://keys.test/", ca_file=None, token_file=None, timeout_s=20).read())
    tasks = [asyncio.create_task(each) for each in hanging]
    done, _ = await asyncio.wait(tasks, timeout=0.2)
    assert not done
    async with asyncio.timeout(10):
        await asyncio.gather(*(asyncio.to_thread(time.monotonic) for _ in range(20)))
    names.failing.add("keys.test")
    names.go.set()
    await asyncio.to_thread(release, *files)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {KeySourceFailed, bytes, type(None)}


async def test_a_source_that_hangs_is_read_once(tmp_path: Path) -> None:
    """A token file that hangs occupies one thread, however often the keys are requested."""
    token = tmp_path / "token"
    os.mkfifo(token)
    source = UrlKeySource("http://127.0.0.1:9/", ca_file=None, token_file=str(token), timeout_s=0.05)
    before = threading.active_count()
    for _ in range(10):
        with pytest.raises(KeySourceFailed):
            await source.read()
    assert threading.active_count() == before + 1
    await asyncio.to_thread(release, token)
