"""The wall clock shared by all replicas: the Redis server's, extrapolated with this machine's monotonic clock."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Self

import structlog

from service.model.errors import StoreUnavailable
from service.store.interfaces import Store

log = structlog.get_logger(__name__)

ASK_S = 5.0
"""How often to read the time from Redis."""
SKEW_S = 1.0
"""Warn if a machine's own wall clock is off by more than this."""
WARN_AGAIN_S = 600.0

_TIME = "return redis.call('TIME')"


class SharedClock:
    """Seconds since the epoch, by the clock of the server that holds `PREFIX:clock`. Polls Redis within its context.

    An answer was created between the request and its arrival. That limits how far the server's clock is ahead of our
    monotonic one, and our estimate moves only as far as these bounds demand: a slow answer changes nothing, a step of
    the server's clock is followed. Before the first answer the clock runs on this machine's own time; while Redis is
    away, it continues from the last estimate.
    """

    def __init__(
        self,
        store: Store,
        *,
        prefix: str,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = store.script(_TIME)
        self._key = f"{prefix}:clock"
        self._wall = wall
        self._monotonic = monotonic
        self._ahead_s = wall() - monotonic()
        self._last_s = 0.0
        self._heard = False
        self._warned_at_s = -WARN_AGAIN_S
        self._closing = asyncio.Event()
        self._asker: asyncio.Task[None] | None = None

    def __call__(self) -> float:
        """Return the time. Small corrections never set it back; a step of the server's clock may."""
        now_s = self._monotonic() + self._ahead_s
        if now_s < self._last_s < now_s + SKEW_S:
            return self._last_s
        self._last_s = now_s
        return now_s

    @property
    def skew_s(self) -> float | None:
        """Return how far this machine's wall clock is ahead of the shared one; None while that is unknown."""
        return self._wall() - (self._monotonic() + self._ahead_s) if self._heard else None

    async def __aenter__(self) -> Self:
        """Read the time from Redis once, and start polling."""
        await self.ask()
        self._asker = asyncio.create_task(self._ask_on(), name="shared-clock")
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Stop polling."""
        self._closing.set()
        if self._asker is not None:
            await self._asker

    async def ask(self) -> None:
        """Read the time from Redis; change nothing if it does not answer."""
        asked_s = self._monotonic()
        try:
            seconds, microseconds = map(_number, await self._ask((self._key,), ()))
        except StoreUnavailable:
            return
        told_s = seconds + microseconds / 1e6
        if self._heard:
            self._ahead_s = min(max(self._ahead_s, told_s - self._monotonic()), told_s - asked_s)
        else:
            self._heard, self._ahead_s = True, told_s - self._monotonic()
        self._warn()

    def _warn(self) -> None:
        skew_s, now_s = self.skew_s, self._monotonic()
        if skew_s is None or abs(skew_s) <= SKEW_S or now_s - self._warned_at_s < WARN_AGAIN_S:
            return
        self._warned_at_s = now_s
        log.warning("clock.skewed", ahead_of_redis_s=round(skew_s, 1))

    async def _ask_on(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), ASK_S)
                return
            await self.ask()


def _number(value: object) -> int:
    if not isinstance(value, bytes):
        raise StoreUnavailable("broken answer")
    return int(value)
