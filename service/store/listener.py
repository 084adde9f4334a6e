"""Receives published messages on its own connection, which it reopens if it breaks or falls silent."""

import asyncio
import random
from contextlib import suppress

import structlog
from redis.asyncio.connection import AbstractConnection

from service.model.errors import StoreUnavailable
from service.store.connection_factory import Address, ConnectionFactory, opened
from service.store.faults import REDIS_ERRORS, unavailable
from service.store.interfaces import OnGap, OnMessage
from service.store.topology import Topology

log = structlog.get_logger(__name__)

QUIET_S = 0.5


def pause_s(failures: int, chance: float) -> float:
    """Return the delay after `failures` in a row: doubling up to half a second, with jitter from `chance` in [0, 1)."""
    return min(0.5, 0.05 * 2.0 ** min(failures - 1, 10)) * (0.5 + chance / 2)


class Listener:
    """Subscribes to all requested channels; pings a server that has been silent for QUIET_S."""

    def __init__(self, topology: Topology, dialer: ConnectionFactory, *, timeout_s: float) -> None:
        self._topology = topology
        self._dialer = dialer
        self._timeout_s = timeout_s
        self._ears: dict[bytes, list[tuple[OnMessage, OnGap | None]]] = {}
        self._connection: AbstractConnection | None = None
        self._avoid: Address | None = None
        self._failures = 0
        self._task: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def is_listening(self) -> bool:
        """Return whether a connection is open."""
        return self._connection is not None

    def add(self, channel: str, handler: OnMessage, on_gap: OnGap | None) -> None:
        """Add a channel, or a handler for one; then `on_gap` is called for all handlers of the channel."""
        name = channel.encode()
        self._ears.setdefault(name, []).append((handler, on_gap))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="store-listener")
        elif self._connection is not None:
            # Subscribing again is harmless: the reply confirms that listening has started.
            task = asyncio.create_task(self._subscribe(self._connection, name), name="store-subscribe")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def aclose(self) -> None:
        """Stop listening."""
        if self._task:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await asyncio.gather(*self._asking)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (*REDIS_ERRORS, StoreUnavailable) as exc:
                self._failures += 1
                if self._failures == 1:
                    log.warning("store.not_listening", detail=unavailable(exc).detail)
                await asyncio.sleep(pause_s(self._failures, random.random()))  # noqa: S311 - jitter only

    async def _listen(self) -> None:
        """Listen to one server until it breaks, falls silent or is no longer the right one."""
        address = await self._topology.listening_address(avoid=self._avoid)
        self._avoid = address
        connection = self._dialer.connection(address)
        try:
            async with asyncio.timeout(self._timeout_s):
                await opened(connection)
                self._connection = connection
                await connection.send_command("SUBSCRIBE", *self._ears)
            await self._hear(connection, address)
        finally:
            self._connection = None
            await connection.disconnect(nowait=True)

    async def _hear(self, connection: AbstractConnection, address: Address) -> None:
        awaited = True  # a reply to SUBSCRIBE
        while self._topology.covers(address):
            limit_s = self._timeout_s if awaited else QUIET_S
            reply = await connection.read_response(timeout=limit_s)
            if reply is not None:
                awaited = False
                self._tell(reply)
            elif awaited:
                raise TimeoutError
            else:
                awaited = True
                async with asyncio.timeout(self._timeout_s):
                    await connection.send_command("PING")

    def _tell(self, reply: list[bytes]) -> None:
        """Dispatch a reply. Handlers run as event loop callbacks, so one that fails is reported there and affects no
        other."""
        loop = asyncio.get_running_loop()
        match reply:
            case [b"message", channel, message]:
                for handler, _ in self._ears.get(channel, ()):
                    loop.call_soon(handler, message)
            case [b"subscribe", channel, _]:
                if self._failures:
                    log.info("store.listening_again", failures=self._failures)
                self._failures, self._avoid = 0, None
                for _, on_gap in self._ears.get(channel, ()):
                    if on_gap:
                        loop.call_soon(on_gap)
            case _:
                pass  # a reply to PING

    async def _subscribe(self, connection: AbstractConnection, channel: bytes) -> None:
        with suppress(*REDIS_ERRORS):  # the reader hits the same fault and reconnects
            async with asyncio.timeout(self._timeout_s):
                await connection.send_command("SUBSCRIBE", channel)
