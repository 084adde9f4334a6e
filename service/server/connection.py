"""One HTTP/1.1 connection: reads requests one after the other, and writes the responses."""

import asyncio
import sys
from typing import TYPE_CHECKING, cast

from service.server.asgi import Client, EncodedResponse, Message
from service.server.exchange import AbortReason, Exchange
from service.server.request_head import END, InvalidHead, RequestHead
from service.server.response_head import Framing, encode_head, last_lines

if TYPE_CHECKING:
    from service.server.http_server import HttpServer

NEVER = float("inf")
_NO_REQUEST = RequestHead(scope={}, is_1_1=True, is_head=False, keep_alive=False, has_more=True)
_REPEATED = RequestHead(scope={}, is_1_1=True, is_head=False, keep_alive=True, has_more=False)
LINGER_S = 2.0
LINGER_MAX_BYTES = 1024 * 1024
"""How many bytes to read and discard after a response that closes its connection, so that no reset overtakes it."""


class ClientConnection(asyncio.Protocol):
    """Calls the app for one request at a time; buffers input that arrives meanwhile, up to a limit.

    `deadline_s`, by the loop's clock, is when `expire` is to be called.
    """

    __slots__ = (
        "_drained",
        "_exchange",
        "_input",
        "_is_closing",
        "_is_paused",
        "_is_reading",
        "_lingered_bytes",
        "_server",
        "_transport",
        "_unsent_bytes",
        "_waits_for_head",
        "client",
        "deadline_s",
        "is_lost",
        "task",
    )

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._input = b""
        self._exchange: Exchange | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_paused = self._is_closing = self._waits_for_head = False
        self._unsent_bytes = 0
        self._is_reading = True
        self._lingered_bytes = -1
        self.client: Client | None = None
        self.deadline_s = NEVER
        self.is_lost = False
        self.task: asyncio.Task[None] | None = None

    # Called by the transport:

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accept the connection, unless the limit of connections is reached."""
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(0)  # so that `pause_writing` means that the reader has not taken everything
        peer = transport.get_extra_info("peername")
        self.client = (peer[0], peer[1]) if isinstance(peer, tuple) else None
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        """Serve a request, or buffer input that can't be served yet."""
        if self._is_closing:
            self._linger(len(data))
        elif self._exchange is None and not self._input and not self._is_paused and _is_one_head(data):
            self._begin(data)
        else:
            self._input += data
            self._serve_input()

    def eof_received(self) -> None:
        """Treat the end of input as a disconnect by the client."""

    def pause_writing(self) -> None:
        """Count the bytes that the client has not read."""
        self._is_paused = True
        self._wait_for_reader()
        self._update_buffered()

    def resume_writing(self) -> None:
        """Wake those that wait for the client to read."""
        self._is_paused = False
        self._wake()
        if self._exchange is None and not self.is_lost:
            self._deadline_from_now(self._server.limits.idle_timeout_s)
            self._server.call_soon(self._serve_input)
        elif self._exchange is not None:
            self.deadline_s = NEVER
        self._update_buffered()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release everything."""
        self.is_lost = True
        self._input = b""
        self._is_paused = False
        self._wake()
        if self._exchange is not None:
            self._exchange.disconnect()
        self._server.closed(self)

    # Requests:

    def _serve_input(self) -> None:
        """Serve the next complete request in the buffered input, if its turn has come."""
        if self.is_lost or self._is_closing:
            return
        if self._exchange is None and not self._is_paused and self._input:
            self._input = self._input.lstrip(b"\r\n")  # RFC 9112, 2.2
            end = self._input.find(END)
            if end >= 0:
                head, self._input = self._input[: end + 4], self._input[end + 4 :]
                self._begin(head)
                if self._input:
                    self._server.call_soon(self._serve_input)
            elif len(self._input) > self._server.limits.headers_max_bytes:
                self.refuse(431 if b"\n" in self._input else 414)
            elif not self._waits_for_head:
                self._waits_for_head = True
                self._deadline_from_now(self._server.limits.headers_timeout_s)
        self._set_reading(len(self._input) <= self._server.limits.headers_max_bytes)
        self._update_buffered()

    def _begin(self, data: bytes) -> None:
        server = self._server
        self._waits_for_head = False
        if len(data) > server.limits.headers_max_bytes:
            self.refuse(431 if data.find(b"\n") < server.limits.headers_max_bytes else 414)
            return
        response = server.lookup_head(data, self.client)
        if response is not None:
            self._write_encoded(_REPEATED, response)
            return
        try:
            request = server.head_parser.parse(data)
        except InvalidHead as exc:
            self.refuse(exc.status)
            return
        request.scope["client"] = self.client
        response = server.lookup(request.scope, data)
        if response is not None:
            self._write_encoded(request, response)
            return
        self._exchange = Exchange(self, request)
        self.deadline_s = NEVER
        server.begin(self, self._exchange)

    def refuse(self, status: int, *, has_more: bool = True) -> None:
        """Send a refusal where there is no request, and close; `has_more`: the client may still be sending."""
        start, body = self._server.refusal(status, self.client)
        head, _ = self.write_head(_NO_REQUEST, start, body_length=len(body["body"]))
        self.write(head, body["body"])
        if not self.is_lost:
            self._close(lingers=has_more or bool(self._input))

    def _write_encoded(self, request: RequestHead, response: EncodedResponse) -> None:
        keep_alive = request.keep_alive and not self._server.is_closing
        end = last_lines(date=self._server.date_header.line(), is_1_1=request.is_1_1, keep_alive=keep_alive)
        self.write(response.lines, end, response.body)
        self.response_sent(request, keep_alive=keep_alive)

    # Called by an exchange:

    def write_head(self, request: RequestHead, start: Message, *, body_length: int | None) -> tuple[bytes, Framing]:
        """Return a response's head and the framing of its body."""
        return encode_head(
            start["status"],
            start["headers"],
            date=self._server.date_header.line(),
            body_length=body_length,
            is_1_1=request.is_1_1,
            keep_alive=request.keep_alive and not self._server.is_closing,
        )

    def write(self, *parts: bytes | memoryview) -> None:
        """Write the given bytes, unless the connection is lost."""
        if self._transport is not None and not self.is_lost:
            self._transport.writelines(parts)

    async def drained(self, *, behind: int = 0) -> None:
        """Wait until all written bytes have left this process, or the connection is lost; `behind` bytes wait too."""
        if self._is_paused and behind:
            self._server.buffered.set(self, self._unsent_bytes + behind + len(self._input))
        while self._is_paused and not self.is_lost:
            if self._drained is None:
                self._drained = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._drained)

    def response_sent(self, request: RequestHead, *, keep_alive: bool) -> None:
        """Get ready for the next request, or close."""
        self._exchange = None
        self.task = None
        if self.is_lost:
            return
        if not keep_alive:
            self._close(lingers=request.has_more or bool(self._input))
            return
        if not self._is_paused:
            self._deadline_from_now(self._server.limits.idle_timeout_s)
        self._server.mark_idle(self)
        if self._input:
            self._server.call_soon(self._serve_input)

    # Ending a connection:

    def close_idle(self) -> None:
        """Close, unless a request is being served."""
        if self._exchange is None:
            self._close(lingers=False)

    def expire(self) -> None:
        """End what has timed out: an idle connection, an incomplete header, or a client that reads nothing."""
        if not self._is_paused or self._transport is None:
            self.abort("head" if self._waits_for_head else "idle")
        elif self._transport.get_write_buffer_size() < self._unsent_bytes:
            self._wait_for_reader()
            self._update_buffered()
        else:
            self.abort("reader")

    def abort(self, reason: AbortReason) -> None:
        """Close without sending the rest. The app's task continues and detects it."""
        self._server.aborted_by_reason[reason] += 1
        if self._transport is not None:
            self._transport.abort()

    def _close(self, *, lingers: bool) -> None:
        transport = self._transport
        if transport is None or self._is_closing:
            return
        self._is_closing = True
        self._input = b""
        self._update_buffered()
        self._set_reading(True)
        if lingers and transport.can_write_eof():
            self._lingered_bytes = 0
            transport.write_eof()
            self._deadline_from_now(LINGER_S)
        else:
            self._wait_for_reader()
            transport.close()

    def _linger(self, count: int) -> None:
        self._lingered_bytes += count
        if self._lingered_bytes > LINGER_MAX_BYTES:
            self.abort("linger")

    # Internals:

    def _deadline_from_now(self, after_s: float) -> None:
        self.deadline_s = self._server.now_s() + after_s

    def _wait_for_reader(self) -> None:
        """Leave slow clients to Linux if possible (TCP_USER_TIMEOUT); on other systems, set a deadline."""
        if sys.platform == "linux":
            self.deadline_s = NEVER
        else:
            self._deadline_from_now(self._server.limits.reader_timeout_s)

    def _set_reading(self, reading: bool) -> None:
        if reading != self._is_reading and self._transport is not None and not self._transport.is_closing():
            self._is_reading = reading
            if reading:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _update_buffered(self) -> None:
        if self._is_paused and self._transport is not None:
            self._unsent_bytes = self._transport.get_write_buffer_size()
        else:
            self._unsent_bytes = 0
        self._server.buffered.set(self, self._unsent_bytes + len(self._input))

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set_result(None)
            self._drained = None


def _is_one_head(data: bytes) -> bool:
    """Return whether this is exactly one head, without the line ends that may come before it."""
    return 0 < data.find(END) == len(data) - len(END) and data[0] not in b"\r\n"
