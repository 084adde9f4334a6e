"""The previous release and this one share a Redis: during a rollout, and on the way back."""

import asyncio
import fcntl
import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.sandbox.faults import Latency
from tests.control_client import NO_TLS
from tests.scenes.fleet import APP, PRESENT, Fleet, Release, Replica, fleet, key_of
from tests.scenes.service import Service, service
from tests.scenes.test_pages import RANGE, TODAY, as_ours, stable_fields, upstreams_own
from tests.servers import Server

pytestmark = pytest.mark.scene

ROOT = Path(__file__).resolve().parents[2]
RELEASE_BEFORE = "57c296d3dd802d3bf0fffe4d92aaf7cd37abb6ef"
"""Its tag, or until there is one the commit that stands for it. Each release moves it on (docs/releasing.md)."""
SHARED = 4
"""One request in this many is for a list that no other caller uses; the others are for a few shared lists."""


@pytest.fixture(scope="module")
def before() -> Release:
    """The previous release, with the packages that it pinned; both are kept in the user's cache.

    A shallow clone does not have it: there the newest commit stands for it, which shows the rollout alone.
    """
    git = ["git", "-C", str(ROOT)]
    names = (f"{RELEASE_BEFORE}^{{commit}}", "HEAD^{commit}")
    found = (
        subprocess.run([*git, "rev-parse", "-q", "--verify", name], check=False, capture_output=True) for name in names
    )
    commit = next(each.stdout.decode().strip() for each in found if not each.returncode)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "taskgate" / "releases"
    folder = cache / f"{commit}-{sys.version_info.major}.{sys.version_info.minor}"
    with _locked(cache):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            archive = [*git, "archive", commit, "service", "requirements/run.txt"]
            with tarfile.open(
                fileobj=io.BytesIO(subprocess.run(archive, check=True, capture_output=True).stdout)
            ) as files:
                files.extractall(folder, filter="data")
            (folder / "complete").touch()
        return Release(source=folder, python=_with_packages(folder))


def _with_packages(folder: Path) -> Path:
    """Return a Python with the packages that a release pinned: this one, if it pins the same."""
    pins = Path("requirements", "run.txt")
    if (folder / pins).read_bytes() == (ROOT / pins).read_bytes():
        return PRESENT.python
    python = folder / "venv" / "bin" / "python"
    if not (folder / "venv" / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "venv"], check=True)
        subprocess.run([python, "-m", "pip", "-q", "install", "--require-hashes", "-r", folder / pins], check=True)
        (folder / "venv" / "complete").touch()
    return python


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Load:
    """Callers that request pages of many lists, and judge each answer by the upstream's own list."""

    def __init__(self, at: Service, tasks: list[dict[str, Any]]) -> None:
        self._url = f"http://127.0.0.1:{at.port}/tasks"
        self._tasks = tasks
        self._starts = count(1)
        self.seen: Counter[str] = Counter()

    async def caller(self, number: int) -> None:
        """Send requests until cancelled, on new connections: a kept one might be closed just as it is used."""
        headers = {"Authorization": f"Bearer {key_of(f'c{number}')}", "Prefer": "wait=20"}
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            limits=limits, headers=headers, timeout=30, trust_env=False, verify=NO_TLS
        ) as client:
            for asked in count():
                start = next(self._starts) + 100 if asked % SHARED == 0 else asked % 7
                self.seen[await self._judged(client, start, offset=20 * (asked % 11))] += 1
                await asyncio.sleep(0.02)

    async def _judged(self, client: httpx.AsyncClient, start: int, *, offset: int) -> str:
        since = TODAY - timedelta(days=50) + timedelta(minutes=7 * start)
        query = RANGE | {"since": f"{since:%Y-%m-%dT%H:%M:%SZ}", "sort": "scheduled_at"}
        try:
            answer = await client.get(self._url, params=query | {"app": APP.name, "offset": offset, "limit": 20})
        except httpx.HTTPError as exc:
            return type(exc).__name__
        if answer.status_code != httpx.codes.OK:
            return str(answer.status_code)
        got = [stable_fields(task) for task in answer.json()["tasks"]]
        listed = [task for task in self._tasks if datetime.fromisoformat(task["scheduled_at"]) >= since]
        return "right" if got == listed[offset : offset + 20] else f"wrong page: {query} from {offset}"


async def called(replicas: list[Replica], gateways: Fleet) -> None:
    """Wait until each replica has made new calls, and all together as many as three seconds allow."""
    calls = await gateways.calls()
    earlier = [_calls_of(replica) for replica in replicas]
    async with asyncio.timeout(60):
        while any(_calls_of(replica) < then + 2 for replica, then in zip(replicas, earlier, strict=True)):
            await asyncio.sleep(0.1)
        while await gateways.calls() < calls + 15:
            await asyncio.sleep(0.1)


def _calls_of(replica: Replica) -> int:
    return replica.log().count('"upstream.call"')


async def test_two_releases_share_one_redis_in_a_rollout_and_back(
    own_valkey: Server, before: Release, usersig: Callable[..., str]
) -> None:
    """Never over the budget, no wrong page, no failed request, and both releases keep making calls, during the
    rollout and the way back."""
    started = fleet(own_valkey, replicas=2, tasks=450, release=before)
    async with started as gateways, service(gateways.replicas) as at:
        await gateways.upstream.add_fault(Latency(back_ms=50))
        now_s = int(time.time())
        signature = usersig(identifier=APP.admin, sdkappid=APP.sdkappid, key=APP.key, time_s=now_s)
        theirs = upstreams_own(gateways.upstream_url, signature, sort="scheduled_at", keyword=None)
        await gateways.quiet()
        load = Load(at, [as_ours(task) for task in theirs])
        asking = [asyncio.create_task(load.caller(number)) for number in range(6)]

        await called(gateways.replicas, gateways)
        for release in (PRESENT, before):
            for replica in gateways.replicas:
                replica.release = release
                assert await at.roll(replica, pre_stop_s=0.5) == 0
                await called(gateways.replicas, gateways)
        worst = await gateways.worst_second()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

        assert worst <= 5
        assert load.seen.keys() == {"right"}, load.seen
        assert load.seen["right"] > 300
