"""A pool of connections to a few hosts."""

import asyncio
import ssl
from collections import deque

from service.http_client.addresses import HttpOrigin, HttpProxy, origin_of, target_of
from service.http_client.connecting import connected
from service.http_client.connection import BeforeSend, HttpAnswer, HttpConnection, HttpLimits, HttpRequest
from service.http_client.errors import NoneFree
from service.http_client.resolver import Resolver

KEEPALIVE_S = 30.0
"""How long an idle connection is kept, in seconds."""


class HttpClient:
    """Sends requests to a few configured hosts and returns their answers.

    An exchange ends by its deadline, unless `before_send` takes longer. There are no redirects, cookies or content
    codings, and nothing is taken from the environment. With a `proxy`, all connections go through it.
    """

    def __init__(
        self, limits: HttpLimits, *, resolver: Resolver, context: ssl.SSLContext, proxy: HttpProxy | None = None
    ) -> None:
        self._limits = limits
        self._resolver = resolver
        self._context = context
        self._proxy = proxy
        self._idle: dict[HttpOrigin, deque[tuple[HttpConnection, asyncio.TimerHandle]]] = {}
        self._free: dict[HttpOrigin, asyncio.Semaphore] = {}
        self._is_closing = False
        self.in_use = 0

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: tuple[tuple[str, str], ...],
        deadline_s: float,
        before_send: BeforeSend,
        body: bytes = b"",
    ) -> HttpAnswer:
        """Send one request and return its answer, by `deadline_s` (loop time). Raise HttpFailure.

        `before_send` is awaited once, after a connection is available and before the first byte is written; its
        exceptions pass through unchanged, and then nothing was sent.
        """
        origin = origin_of(url)
        target = target_of(url)
        if self._proxy is not None and origin.scheme == "http":
            target, headers = f"http://{origin.authority}{target}", (*headers, *self._proxy.fields())
        request = HttpRequest(method=method, target=target, host=origin.authority, headers=headers, body=body)
        loop = asyncio.get_running_loop()
        until_s = min(loop.time() + self._limits.connect_timeout_s, deadline_s)
        free = self._free.setdefault(origin, asyncio.Semaphore(self._limits.connections))
        try:
            async with asyncio.timeout_at(until_s):
                await free.acquire()
        except TimeoutError:
            raise NoneFree("no connection was free in time") from None
        self.in_use += 1
        try:
            connection = self._idle_connection(origin) or await self._new_connection(origin, deadline_s=deadline_s)
            answer = await connection.exchange(request, before_send=before_send, deadline_s=deadline_s)
            self._keep(origin, connection)
            return answer
        finally:
            self.in_use -= 1
            free.release()

    async def aclose(self) -> None:
        """Close all idle connections; those in use close after their exchange."""
        self._is_closing = True
        for idle in self._idle.values():
            while idle:
                connection, timer = idle.pop()
                timer.cancel()
                connection.close()
        await asyncio.sleep(0)  # transports notify their protocols in the next iteration of the loop

    def _idle_connection(self, origin: HttpOrigin) -> HttpConnection | None:
        """Return the most recently used connection, if one is open."""
        idle = self._idle.get(origin, deque())
        while idle:
            connection, timer = idle.pop()
            timer.cancel()
            if connection.is_usable:
                return connection
        return None

    async def _new_connection(self, origin: HttpOrigin, *, deadline_s: float) -> HttpConnection:
        until_s = min(asyncio.get_running_loop().time() + self._limits.connect_timeout_s, deadline_s)
        stream = await connected(
            origin, resolver=self._resolver, context=self._context, proxy=self._proxy, until_s=until_s
        )
        return HttpConnection(stream, self._limits)

    def _keep(self, origin: HttpOrigin, connection: HttpConnection) -> None:
        if self._is_closing:
            connection.close()
        elif connection.is_usable:
            timer = asyncio.get_running_loop().call_later(KEEPALIVE_S, connection.close)
            self._idle.setdefault(origin, deque()).append((connection, timer))
