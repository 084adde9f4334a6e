"""One request served by the app: its ASGI `receive` and `send`, and the reasons for closing a connection early."""

import asyncio
from typing import TYPE_CHECKING, Literal, get_args

from service.server.asgi import Message
from service.server.request_head import RequestHead
from service.server.response_head import Framing, InvalidResponse

if TYPE_CHECKING:
    from service.server.connection import ClientConnection

AbortReason = Literal["room", "full", "head", "idle", "reader", "linger", "unsent", "length", "cut_off", "shutdown"]
"""
- `room`: the longest idle one, for a new connection; `full`: the new one itself, with 503
- `head`: a head that did not come in time; `idle`: no further request
- `reader`: read nothing of its response; `linger`: kept sending after a response that closes the connection
- `unsent`: held unread bytes for longest, when all connections together held too many
- `length`, `cut_off`: the response broke off
- `shutdown`: the end of the process
"""
ABORT_REASONS: tuple[AbortReason, ...] = get_args(AbortReason)

PIECE_BYTES = 64 * 1024
"""How much of a body is passed to a connection before its client has read the previous part."""


class Exchange:
    """Produces the response to one request. A client that disconnects is no error: later output is discarded."""

    __slots__ = (
        "_connection",
        "_disconnected",
        "_framing",
        "_has_received",
        "_sent_bytes",
        "_start",
        "is_complete",
        "request",
    )

    def __init__(self, connection: "ClientConnection", request: RequestHead) -> None:
        self.request = request
        self.is_complete = False
        self._connection = connection
        self._start: Message | None = None
        self._framing: Framing | None = None
        self._sent_bytes = 0
        self._has_received = False
        self._disconnected: asyncio.Future[None] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether any of the response has been written."""
        return self._framing is not None

    async def receive(self) -> Message:
        """Return the request's body, which is always empty, then wait for the client to disconnect."""
        if not self._has_received:
            self._has_received = True
            return {"type": "http.request", "body": b"", "more_body": False}
        if not self._connection.is_lost and not self.is_complete:
            if self._disconnected is None:
                self._disconnected = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._disconnected)
        return {"type": "http.disconnect"}

    def disconnect(self) -> None:
        """Called when the connection is lost or the response complete: wake those that wait for the disconnect."""
        if self._disconnected is not None and not self._disconnected.done():
            self._disconnected.set_result(None)

    async def send(self, message: Message) -> None:
        """Accept the start of the response, or a part of its body.

        A body is sent piece by piece, the next one when the client has read the previous one; if more is to come,
        return when all of this part has left the process.
        """
        if message["type"] == "http.response.start":
            if self._start is not None:
                raise InvalidResponse("a second start")
            self._start = message
            return
        if self._start is None or self.is_complete:
            raise InvalidResponse("a body without its start, or after its end")
        body, more = message.get("body", b""), message.get("more_body", False)
        head = b""
        if self._framing is None:
            head, self._framing = self._connection.write_head(
                self.request, self._start, body_length=None if more else len(body)
            )
        framing = self._framing
        self._sent_bytes += len(body)
        if not self._connection.is_lost:
            await self._write(head, b"" if self.request.is_head else body, framing=framing, more=more)
        if not more:
            self._end(framing, status=self._start["status"])

    async def _write(self, head: bytes, body: bytes, *, framing: Framing, more: bool) -> None:
        before, after = head, b""
        if framing.is_chunked and not self.request.is_head:
            before += b"%x\r\n" % len(body) if body else b""
            after = (b"\r\n" if body else b"") + (b"" if more else b"0\r\n\r\n")
        if len(body) <= PIECE_BYTES:
            self._connection.write(before, body, after)
        else:
            view = memoryview(body)
            self._connection.write(before, view[:PIECE_BYTES])
            for start in range(PIECE_BYTES, len(body), PIECE_BYTES):
                # Whole bodies are files and cached pages, shared by many; a part of a stream is its reader's alone.
                await self._connection.drained(behind=len(body) - start if more else 0)
                self._connection.write(view[start : start + PIECE_BYTES])
            if after:
                self._connection.write(after)
        if more:
            await self._connection.drained()

    def _end(self, framing: Framing, *, status: int) -> None:
        self.is_complete = True
        self.disconnect()
        if framing.length not in (None, self._sent_bytes) and not self.request.is_head and status != 304:
            self._connection.abort("length")  # the client waits for more, or would take the rest for the next response
        else:
            self._connection.response_sent(self.request, keep_alive=framing.keep_alive)
