"""Steps of Valkey's clock under whole processes. Needs libfaketime (Debian: faketime)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenes.fleet import fleet
from tests.servers import Server

pytestmark = [pytest.mark.scene, pytest.mark.long]


class Stepped:
    """A Valkey, and the file that sets the offset of its clock."""

    def __init__(self, server: Server, offset: Path) -> None:
        self.server = server
        self._offset = offset

    def step(self, by: str) -> None:
        """Set its clock off by an offset such as `-1h`."""
        self._offset.write_text(by + "\n")


@pytest.fixture
def stepped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stepped]:
    """Only Valkey gets the false clock: the gateways and the upstream keep the true one."""
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    offset = tmp_path / "offset"
    offset.write_text("+0\n")
    server = Server()
    with monkeypatch.context() as environment:
        environment.setenv("LD_PRELOAD", str(library))
        environment.setenv("FAKETIME_TIMESTAMP_FILE", str(offset))
        environment.setenv("FAKETIME_NO_CACHE", "1")
        environment.setenv("DONT_FAKE_MONOTONIC", "1")
        server.start()
    try:
        yield Stepped(server, offset)
    finally:
        server.kill()


@pytest.mark.parametrize("by", ["-1h", "+3h"])
async def test_a_clock_step_never_exceeds_the_limit(stepped: Stepped, by: str) -> None:
    """Under a backlog the server's clock steps: never 6 calls in a second, and turns resume within 4 s."""
    async with fleet(stepped.server) as gateways:
        tasks = [asyncio.create_task(gateways.page(n % 4, caller=f"c{n % 10}", q=f"backlog {n}")) for n in range(120)]
        while await gateways.calls() < 8:
            await asyncio.sleep(0.02)
        before_s = int(stepped.server.run("TIME")[0])
        stepped.step(by)
        assert abs(int(stepped.server.run("TIME")[0]) - before_s) > 3_000
        before = await gateways.calls()
        async with asyncio.timeout(4):
            while await gateways.calls() <= before:
                await asyncio.sleep(0.02)
        async with asyncio.timeout(20):
            while await gateways.calls() < before + 12:
                await asyncio.sleep(0.02)
        assert await gateways.worst_second() <= 5
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
