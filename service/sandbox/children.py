"""Child processes that never outlive this one: each runs under a guard (`guard.py`), which waits on a pipe."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

GUARD = Path(__file__).with_name("guard.py")


class Child:
    """One running command. It ends when `end` is called, when this process ends, or by itself."""

    def __init__(self, guard: asyncio.subprocess.Process, *, grace_s: float) -> None:
        self._guard = guard
        self._grace_s = grace_s

    @property
    def running(self) -> bool:
        """Whether the command still runs, as far as is known."""
        return self._guard.returncode is None

    async def wait(self) -> int:
        """Wait until the command has ended; return its exit status (128 + n after signal n)."""
        return await self._guard.wait()

    async def end(self, *, keep_directory: bool = False) -> int:
        """End the command and its whole process group within the grace period; return its exit status."""
        pipe = self._guard.stdin
        if pipe is not None and not pipe.is_closing():
            if keep_directory:
                pipe.write(b"keep")
            pipe.close()
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._guard.wait(), self._grace_s + 5)
        with contextlib.suppress(ProcessLookupError):
            self._guard.kill()
        return await self._guard.wait()


async def start_child(
    command: Sequence[str | Path],
    *,
    grace_s: float = 10.0,
    remove: Path | None = None,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
) -> Child:
    """Start a command that ends with this process.

    It gets SIGTERM, then SIGKILL after `grace_s` seconds (at once if that is 0). `remove` is a directory that is
    removed when this process is gone or calls `end`; if the command ends by itself, it stays. `output` receives
    standard output and error, which otherwise are this process's own.
    """
    guard = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", os.fspath(GUARD), str(grace_s), str(remove or "")),
        *(str(word) for word in command),
        stdin=asyncio.subprocess.PIPE,
        stdout=output,
        stderr=output,
        env=None if environment is None else {**os.environ, **environment},
        start_new_session=True,  # a Ctrl-C in the terminal is for this process alone, which ends its children in order
    )
    return Child(guard, grace_s=grace_s)
