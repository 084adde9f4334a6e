"""A fleet: several gateway processes on one Valkey, with the sandbox upstream as a separate process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import yaml

from service.sandbox.faults import SandboxCall
from service.sandbox.upstream import APPS
from tests.control_client import ControlClient
from tests.death import die_with_parent
from tests.forks import Fork, fork
from tests.ports import free_port
from tests.scenes.slots import free_slots
from tests.servers import Server, until_listening
from tests.settings import hashed

APP = APPS[0]
READY_S = 60.0
SLOW_REDIS_S = 5.0
"""Redis' time-out unless a test gives its own settings: a busy machine is no outage of Redis."""
SLOW_TRANSIT_S = 1.5
"""How long a call may take to be counted by the upstream, unless a test says otherwise: both processes may have to wait
for a processor."""


class Got(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `took_s` counts from the request's start, `at_s` is when it was there (monotonic)."""

    status: int
    headers: dict[str, str]
    body: bytes
    took_s: float
    at_s: float

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def waited_s(self) -> float:
        """The wait in line according to `Server-Timing`, in seconds."""
        timing = self.headers.get("server-timing", "")
        return float(timing.split("line;dur=")[1].split(",")[0]) / 1000 if "line;dur=" in timing else 0.0

    @property
    def upstream_s(self) -> float:
        """The duration of its call according to `Server-Timing`, in seconds; 0 without a call."""
        timing = self.headers.get("server-timing", "")
        return float(timing.split("upstream;dur=")[1].split(",")[0]) / 1000 if "upstream;dur=" in timing else 0.0

    @property
    def is_stale(self) -> bool:
        """Whether the page is a stored one past its freshness, for whatever reason."""
        return any(f"detail={reason}" in self.outcome for reason in ("renewing", "wait", "error"))

    @property
    def outcome(self) -> str:
        """The value of `Cache-Status`."""
        return self.headers.get("cache-status", "")


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A release as it runs here: the folder that holds its `service`, and a Python with the packages that it pins."""

    source: Path
    python: Path


PRESENT = Release(source=Path.cwd(), python=Path(sys.executable))
"""What is tested."""
IS_FORKED = "PYTEST_VERSION" in os.environ
"""Whether gateways are forked unless a release is given: in tests, and not in benchmarks, which measure starts, too."""


class Replica:
    """One gateway process."""

    def __init__(self, configuration: Path, log: Path) -> None:
        self.port = free_port()
        self.metrics_port = free_port()
        self.configuration = configuration
        self.log_file = log
        self.process: subprocess.Popen[bytes] | Fork | None = None
        self.release: Release | None = None if IS_FORKED else PRESENT

    def start(self) -> None:
        """Start, or start again on the same port."""
        environment = os.environ | {
            "TASKGATE_CONFIG": str(self.configuration),
            "TASKGATE__SERVER__PORT": str(self.port),
            "TASKGATE__TELEMETRY__METRICS_PORT": str(self.metrics_port),
        }
        with self.log_file.open("ab") as log:
            if self.release is None:
                self.process = fork("serve", environment=environment, stdout=log.fileno(), stderr=log.fileno())
                return
            self.process = subprocess.Popen(
                [self.release.python, "-m", "service", "serve"],
                env=environment,
                cwd=self.release.source,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,
            )

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, *, within_s: float = 60.0) -> int:
        """Wait for the process; returns its exit status."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, within_s)

    def log(self) -> str:
        """Return everything that it wrote."""
        return self.log_file.read_text(errors="replace")

    async def ready(self) -> None:
        """Wait until `/readyz` reports that it is ready."""
        async with asyncio.timeout(READY_S):
            while True:
                try:
                    if (await get(self.port, "/readyz")).status == 200:
                        return
                except OSError:
                    pass
                if self.process is None or self.process.poll() is not None:
                    raise AssertionError(f"the gateway has ended: {self.log()}")
                await asyncio.sleep(0.02)

    def end(self) -> None:
        """End it, in whatever state it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Fleet:
    """Gateways, their callers' keys, and the upstream that they share."""

    def __init__(self, directory: Path, *, replicas: int, sandbox_url: str, configuration: Path) -> None:
        self.upstream = ControlClient(sandbox_url)
        self.upstream_url = sandbox_url
        self._secret = directory / "secret"
        self.replicas = [Replica(configuration, directory / f"replica-{number}.log") for number in range(replicas)]

    async def page(
        self,
        replica: int,
        *,
        caller: str = "c0",
        wait: float | None = 30,
        headers: Mapping[str, str] | None = None,
        **query: object,
    ) -> Got:
        """Request a page from a replica; `wait` is the patience in seconds, None for the default."""
        fields = {"Authorization": f"Bearer {key_of(caller)}"} | dict(headers or {})
        if wait is not None:
            fields["Prefer"] = f"wait={wait}"
        return await get(self.replicas[replica].port, path(**query), fields)

    def write_secret(self, secret: str) -> None:
        """Replace the app's secret in the file that the gateways read."""
        self._secret.write_text(secret)

    async def ask(
        self,
        replica: int,
        target: str,
        *,
        caller: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Got:
        """Request any other path from a replica."""
        fields = {"Authorization": f"Bearer {key_of(caller)}"} | dict(headers or {})
        return await get(self.replicas[replica].port, target, fields, method=method)

    async def arrivals_ms(self, call: SandboxCall = "list") -> list[float]:
        """Return the times at which calls of one kind arrived at the upstream, in milliseconds, in order."""
        return sorted((await self.upstream.stats()).of(APP.sdkappid, call).arrivals_ms)

    async def calls(self, call: SandboxCall = "list") -> int:
        """Return the number of calls of one kind that arrived at the upstream."""
        return (await self.upstream.stats()).of(APP.sdkappid, call).calls

    async def worst_second(self, call: SandboxCall = "list") -> int:
        """Return the largest number of calls of one kind that arrived within any second."""
        return (await self.upstream.stats()).of(APP.sdkappid, call).worst_window

    async def quiet(self) -> None:
        """Serve a page from each replica, free all slots, and reset the upstream's count of calls."""
        is_present = self.replicas[0].release in (None, PRESENT)
        if is_present:
            await free_slots(self.replicas[0].configuration)
        for replica in range(len(self.replicas)):
            await self.page(replica, q="warm up", limit=1)
        if is_present:
            await free_slots(self.replicas[0].configuration)
        else:  # only that release knows how it keeps its slots
            await asyncio.sleep(1.1)
        await self.upstream.reset_stats()


def key_of(caller: str) -> str:
    """A caller's key in tests."""
    return f"key-of-{caller}"


def path(**query: object) -> str:
    """The path of a page of the scenes' app."""
    return "/tasks?" + urlencode({"app": APP.name, **query})


async def get(port: int, target: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> Got:
    """Send one request on a new connection; cancelling it disconnects."""
    started_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        fields = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{fields}\r\n".encode())
        raw = await reader.read()
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    if not lines:
        raise ConnectionResetError("no answer")
    answered = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    now_s = time.monotonic()
    return Got(status=int(status.split(" ")[1]), headers=answered, body=body, took_s=now_s - started_s, at_s=now_s)


def write_configuration(
    directory: Path, *, sandbox_url: str, redis: Mapping[str, Any], weights: Mapping[str, float], **sections: Any
) -> Path:
    """A configuration for one app; `sections` are added to it."""
    secret = directory / "secret"
    secret.write_text(APP.key)
    callers = {
        name: {"keys": [hashed(key_of(name))], "apps": [APP.name], "weight": weight} for name, weight in weights.items()
    }
    app = {"sdkappid": APP.sdkappid, "admin": APP.admin, "base_url": sandbox_url, "secret_file": str(secret)}
    settings: dict[str, Any] = {
        "apps": {APP.name: app},
        "callers": callers,
        "redis": dict(redis),
        "server": {"log_level": "info", "log_format": "json"},
    }
    file = directory / "taskgate.yaml"
    file.write_text(yaml.safe_dump(settings | sections))
    return file


def _sandbox(*arguments: str) -> Fork:
    """Start `taskgate sandbox`, without what it prints."""
    with open(os.devnull, "wb") as nothing:
        return fork("sandbox", *arguments, environment=os.environ, stdout=nothing.fileno(), stderr=2)


@asynccontextmanager
async def fleet(
    redis: Mapping[str, Any] | Server,
    *,
    replicas: int = 4,
    weights: Mapping[str, float] | None = None,
    tasks: int = 2000,
    sandbox_calls: int = 5,
    range_max_days: int = 366,
    release: Release | None = None,
    **sections: Any,
) -> AsyncIterator[Fleet]:
    """Start everything, wait until it is ready and idle, and stop it at the end.

    A mapping as `redis` has all its settings, such as the default time-out for a Redis that hangs. The upstream refuses
    ranges longer than `range_max_days`. With a `release`, gateways are started by its Python.
    """
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        directory = Path(name)
        port = free_port()
        sandbox_url = f"http://127.0.0.1:{port}"
        upstream = _sandbox(
            *("--port", str(port), "--tasks", str(tasks), "--calls", str(sandbox_calls)),
            *("--range-max-days", str(range_max_days)),
        )
        configuration = write_configuration(
            directory,
            sandbox_url=sandbox_url,
            redis={"url": redis.url, "timeout_s": SLOW_REDIS_S} if isinstance(redis, Server) else redis,
            weights=weights or {f"c{number}": 1.0 for number in range(40)},
            budget={"transit_s": SLOW_TRANSIT_S} | sections.pop("budget", {}),
            **sections,
        )
        made = Fleet(directory, replicas=replicas, sandbox_url=sandbox_url, configuration=configuration)
        try:
            for replica in made.replicas:
                replica.release = release or replica.release
                replica.start()
            await asyncio.gather(
                until_listening(port, within_s=READY_S), *(replica.ready() for replica in made.replicas)
            )
            await made.quiet()
            yield made
        finally:
            for replica in made.replicas:
                replica.end()
            upstream.kill()
            upstream.wait()
