"""Measures event loop lag, which reveals any computation that blocks the loop for too long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from service.telemetry.families import BRIEF_S, Histogram

EVERY_S = 0.25


class LoopLag:
    """Schedules a wake-up every `EVERY_S` and records how late it runs."""

    def __init__(self) -> None:
        self.seconds = Histogram(BRIEF_S)

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """Measure within the context."""
        task = asyncio.create_task(self._measure(), name="loop-lag")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _measure(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + EVERY_S
            await asyncio.sleep(EVERY_S)
            self.seconds.observe(max(loop.time() - due_s, 0.0))
