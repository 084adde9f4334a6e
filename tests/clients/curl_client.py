"""The loop around curl that docs/clients.md shows. Run by `make test-clients`."""

import asyncio
import json
import os
from pathlib import Path

from tests.clients.conftest import shown_program
from tests.clients.watched import Watched
from tests.event_reader import Event, Mirror

WITHIN_S = 60.0


def read(file: Path) -> list[Event]:
    """Return the events in the file, the last of which may be cut off."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    blocks = [block for block in text.split("\n\n")[:-1] if "event: " in block]
    fields = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    return [Event(each["id"], each["event"], json.loads(each["data"])) for each in fields]


async def test_curl(tmp_path: Path, watched: Watched) -> None:
    """The loop's file has each event once, across a lost connection, and the loop ends with `end`."""
    script, file = tmp_path / "watch.sh", tmp_path / "events.txt"
    script.write_text(shown_program("Watching: curl", "sh"))
    process = await asyncio.create_subprocess_exec("sh", script, cwd=tmp_path, env=os.environ | watched.environment)
    try:
        async with asyncio.timeout(WITHIN_S):
            await seen(file, "synced")
            watched.cut_and_change()
            await seen(file, "removed")
            watched.revoke()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    mirror = Mirror()
    for event in read(file):
        mirror.take(event)
    assert sorted(mirror.tasks) == [1001, 1002, 1003, 1004]
    assert (mirror.names.count("task"), mirror.names.count("reset"), mirror.names[-1]) == (3, 0, "end")


async def seen(file: Path, name: str) -> None:
    """Wait until the file holds an event of this name."""
    while all(event.name != name for event in read(file)):
        await asyncio.sleep(0.05)
