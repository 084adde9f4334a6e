"""The bytes of one connection. Nothing is read before it is awaited."""

import asyncio
import select
import ssl
from typing import cast

BUFFER_BYTES = 256 * 1024


class ByteStream(asyncio.Protocol):
    """One connection's transport. Bytes that arrive while no answer is awaited close it."""

    def __init__(self) -> None:
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._arrived: asyncio.Future[None] | None = None
        self._fault: Exception | None = None
        self._listens = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not a subclass of it

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if not self._listens:
            self.close()
            return
        self._received += data
        if len(self._received) >= BUFFER_BYTES and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        self.is_closed = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self.is_closed = True
        self._fault = exc
        self._wake()

    def send(self, data: bytes) -> None:
        """Send, and treat what arrives from now on as the answer. On a closed connection nothing is sent."""
        self._listens = True
        if self._transport is not None and not self.is_closed:
            self._transport.write(data)

    async def read(self, *, until_s: float) -> bytes:
        """Return what has arrived, b"" at the end. Raise TimeoutError at `until_s` (loop time), OSError if it broke."""
        loop = asyncio.get_running_loop()
        while not self._received and not self.is_closed:
            self._arrived = loop.create_future()
            async with asyncio.timeout_at(until_s):
                await self._arrived
        data = bytes(self._received)
        self._received.clear()
        if not data and isinstance(self._fault, OSError):
            raise self._fault
        if self._transport is not None and not self.is_closed:
            self._transport.resume_reading()
        return data

    @property
    def is_silent(self) -> bool:
        """Whether the connection is open and nothing has arrived, including what the event loop has not seen yet."""
        if self.is_closed or self._received or self._transport is None:
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def rest(self) -> None:
        """Stop awaiting data. Bytes already received belong to no request: then the connection is closed."""
        self._listens = False
        if self._received:
            self.close()

    def close(self) -> None:
        """Close at once."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    async def start_tls(self, context: ssl.SSLContext, *, host: str) -> None:
        """Start TLS on this connection. Raise OSError."""
        if self._transport is None:
            raise ConnectionError("not connected")
        loop = asyncio.get_running_loop()
        upgraded = await loop.start_tls(self._transport, self, context, server_hostname=host)
        if upgraded is None:
            raise ConnectionError("closed during the handshake")
        self._transport = upgraded

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
