"""Measures how late the event loop is: everything that computes too long shows here, whoever does it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from service.telemetry.histogram import BRIEF_S, Histogram

EVERY_S = 0.25


class Lag:
    """Asks for a wake-up every `EVERY_S` and notes how late it comes."""

    def __init__(self) -> None:
        self.seconds = Histogram(BRIEF_S)

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        """Measure as long as this lasts."""
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
