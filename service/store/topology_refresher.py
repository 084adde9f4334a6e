"""Refreshes the list of servers: one lookup at a time, rate-limited, and in the background if a server is known."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from service.model.errors import StoreUnavailable

AGAIN_S = 0.1


class TopologyRefresher:
    """Runs `look` every `every_s` seconds while in use, and after AGAIN_S if something is wrong."""

    def __init__(self, look: Callable[[], Awaitable[None]], *, every_s: float) -> None:
        self._look = look
        self._every_s = every_s
        self._task: asyncio.Task[StoreUnavailable | None] | None = None
        self._looked_at_s = float("-inf")
        self._fault: StoreUnavailable | None = None

    def refresh_soon(self, *, amiss: bool) -> None:
        """Start a lookup if one is due; don't wait for it."""
        rest_s = AGAIN_S if amiss or self._fault else self._every_s
        if self._task is None and time.monotonic() - self._looked_at_s >= rest_s:
            self._start()

    async def look(self) -> None:
        """Look up now, or join the lookup in progress. If the last one has just failed, fail immediately with the same
        error."""
        if self._task is None and self._fault and time.monotonic() - self._looked_at_s < AGAIN_S:
            raise StoreUnavailable(self._fault.detail)
        fault = await asyncio.shield(self._task or self._start())
        if fault:
            raise StoreUnavailable(fault.detail) from fault

    async def aclose(self) -> None:
        """Wait for the lookup in progress; its steps are bounded in time."""
        if self._task:
            await self._task

    def _start(self) -> asyncio.Task[StoreUnavailable | None]:
        self._task = asyncio.create_task(self._run(), name="store-look")
        return self._task

    async def _run(self) -> StoreUnavailable | None:
        self._fault = None
        try:
            await self._look()
        except StoreUnavailable as exc:
            self._fault = exc
        finally:
            self._looked_at_s = time.monotonic()
            self._task = None
        return self._fault
