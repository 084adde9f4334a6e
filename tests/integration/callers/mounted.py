"""A gateway process whose configuration is mounted as Kubernetes mounts it."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from service.sandbox.serving import Sandbox
from service.sandbox.upstream import APPS
from tests.scenes.fleet import Got, Replica, get, key_of
from tests.servers import Server
from tests.settings import hashed

APP = APPS[0].name
OTHER_APP = APPS[1].name
PAGE = f"/tasks?app={APP}&limit=1"


class Mounted:
    """The process, and the folder of its configuration: links into `..data`, a link that is swapped at once."""

    def __init__(self, folder: Path, *, valkey: Server, sandbox: Sandbox) -> None:
        self.folder = folder
        self.replica = Replica(folder / "taskgate.yaml", folder / "log")
        self._valkey = valkey
        self._sandbox = sandbox
        self._swaps = 0

    def put(self, *callers: str, text: str | None = None, **sections: Any) -> None:
        """Swap the configuration for one with these callers, or for the given text."""
        self._swaps += 1
        folder = self.folder / f"..{self._swaps}"
        folder.mkdir()
        (folder / "taskgate.yaml").write_text(
            yaml.safe_dump(self._document(callers, sections)) if text is None else text
        )
        for app in APPS[:2]:
            (folder / f"{app.name}.secret").write_text(app.key)
        for name in os.listdir(folder):
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        (self.folder / "..new").symlink_to(folder.name)
        os.replace(self.folder / "..new", self.folder / "..data")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of this name in the log so far, without a line that is still being written."""
        lines = [line for line in self.replica.log().rpartition("\n")[0].splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    async def logged(self, name: str, count: int) -> None:
        """Wait until the event has been logged this many times."""
        async with asyncio.timeout(20):
            while len(self.events(name)) < count:
                await asyncio.sleep(0.02)

    async def ask(self, credential: str | None, path: str = PAGE, fields: Mapping[str, str] | None = None) -> Got:
        """Send one request with this credential."""
        own = {} if credential is None else {"Authorization": f"Bearer {credential}"}
        return await get(self.replica.port, path, own | dict(fields or {}))

    def longest_ttl_ms(self) -> int:
        """The longest remaining lifetime of a block in Redis."""
        keys = self._valkey.run("KEYS", "*:b:*")
        return max(self._valkey.run("PTTL", key) for key in keys)

    def _document(self, callers: tuple[str, ...], sections: Mapping[str, Any]) -> dict[str, Any]:
        def app(index: int) -> dict[str, Any]:
            known = APPS[index]
            return {
                "sdkappid": known.sdkappid,
                "admin": known.admin,
                "base_url": self._sandbox.base_url,
                "secret_file": f"{known.name}.secret",
            }

        return {
            "apps": {APP: app(0), OTHER_APP: app(1)},
            "callers": {name: {"keys": [hashed(key_of(name))], "apps": [APP]} for name in callers},
            "redis": {"url": self._valkey.url, "timeout_s": 0.9},
            "budget": {"turn_lease_s": 1.0},  # a shorter one than the time-out would be warned of
            "server": {"log_level": "info", "log_format": "json"},
        } | dict(sections)


@asynccontextmanager
async def mounted(mount: Mounted) -> AsyncIterator[Mounted]:
    """Start the process on this configuration, wait until it is ready, and end it."""
    mount.replica.start()
    try:
        await mount.replica.ready()
        yield mount
    finally:
        mount.replica.end()
    assert "Traceback" not in mount.replica.log()
