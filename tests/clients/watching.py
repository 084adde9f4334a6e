"""Run a program that watches a list, disconnect it, and revoke its access."""

import asyncio
import os
from pathlib import Path

from tests.clients.watched import SAID, Watched

WITHIN_S = 120.0


async def follows(watched: Watched, *command: str | Path, cwd: Path) -> None:
    """Raise AssertionError unless the program prints the expected output, and continues from the last received
    event."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=os.environ | watched.environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    said: list[str] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            while line := (await process.stdout.readline()).decode().rstrip("\n"):
                said.append(line)
                if line == SAID[0]:
                    watched.cut_and_change()
                if line == SAID[-2]:
                    watched.revoke()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert said == SAID, said
    first, *others = watched.last_event_ids
    assert (first, [bool(each) for each in others]) == ("", [True] * max(len(others), 1)), watched.last_event_ids
