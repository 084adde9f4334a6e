"""A slot between `begin` and the moment when the call is sent."""

import asyncio
from collections.abc import Awaitable, Callable

from service.budget.line.jobs import Payer
from service.budget.scheduler.interfaces import Beginning, Begun
from service.model.errors import StoreUnavailable, UpstreamUnreachable


class CallSlot:
    """The slot of a call that is about to be sent. Taken by a `begin` asked for at `asked_s` (loop time).

    `late_s` is half the transit: the other half is for the way to the upstream.
    """

    def __init__(
        self, *, begin: Callable[[], Awaitable[Beginning]], app: str, payer: Payer, asked_s: float, late_s: float
    ) -> None:
        self.payer = payer
        self._begin = begin
        self._app = app
        self._late_s = late_s
        self._asked_s = asked_s

    async def hold(self) -> None:
        """Take the slot anew where connecting took long: transit counts from the sending."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._asked_s <= self._late_s:
            return
        asked_s = loop.time()
        try:
            held = isinstance(await self._begin(), Begun)
        except StoreUnavailable as exc:
            raise UpstreamUnreachable("connecting took too long: the slot was lost", app=self._app) from exc
        if not held or loop.time() - asked_s > self._late_s:
            raise UpstreamUnreachable("connecting took too long: the slot was lost", app=self._app)
