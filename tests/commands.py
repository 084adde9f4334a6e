"""Runs foreign commands."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

WITHIN_S = 120.0


async def run(
    *command: str | Path, cwd: Path, environment: Mapping[str, str] | None = None, within_s: float = WITHIN_S
) -> str:
    """Return a command's output. Raise AssertionError if it fails, TimeoutError if it takes too long."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(within_s):
            said = (await process.communicate())[0].decode(errors="replace")
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, f"{command[0]} ends with {process.returncode}:\n{said}"
    return said
