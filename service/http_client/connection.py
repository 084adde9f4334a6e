"""One connection, with one exchange after the other."""

import asyncio
from collections.abc import Awaitable, Callable

import h11
import msgspec

from service.http_client.byte_stream import ByteStream
from service.http_client.errors import AnswerBroken, AnswerEncoded, AnswerTooLarge, HttpFailure, NotAnsweredInTime

HEAD_MAX_BYTES = 64 * 1024

BeforeSend = Callable[[], Awaitable[None]]


class HttpLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of each exchange; `read_timeout_s` is that of each silence.

    `connections` is per host; `connect_timeout_s` includes waiting for a free one.
    """

    connect_timeout_s: float
    read_timeout_s: float
    connections: int
    answer_max_bytes: int


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The request to send. `target` is the request target; `headers` omit `Host` and the body's length."""

    method: str
    target: str
    host: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The received answer. The body is read if the status is 200, and empty for all others."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> str:
        """Return a field's value, empty if absent; names are matched in lower case."""
        return next((value.decode("latin-1") for found, value in self.headers if found == name.encode()), "")


class HttpConnection:
    """HTTP/1.1 on a connection (RFC 9112)."""

    def __init__(self, stream: ByteStream, limits: HttpLimits) -> None:
        self._stream = stream
        self._limits = limits
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_MAX_BYTES)

    @property
    def is_usable(self) -> bool:
        """Whether another exchange can begin."""
        return self._http.our_state is h11.IDLE and self._stream.is_silent

    def close(self) -> None:
        """Close at once."""
        self._stream.close()

    async def exchange(self, request: HttpRequest, *, before_send: BeforeSend, deadline_s: float) -> HttpAnswer:
        """Send the request and return the answer. Raise HttpFailure.

        `before_send` is awaited before the first byte is written; its exceptions pass through unchanged, and then
        nothing was sent. `deadline_s` (loop time) bounds the whole exchange. Anything but a complete answer without
        surplus bytes closes the connection.
        """
        data = self._encoded(request)
        try:
            await before_send()
            self._stream.send(data)
            answer = await self._answer(deadline_s=deadline_s)
        except BaseException:
            self._stream.close()
            raise
        self._finish()
        return answer

    def _encoded(self, request: HttpRequest) -> bytes:
        headers = [("host", request.host), *request.headers]
        if request.body or request.method == "POST":
            headers.append(("content-length", str(len(request.body))))
        head = h11.Request(method=request.method, target=request.target, headers=headers)
        pieces = [self._http.send(event) for event in (head, h11.Data(data=request.body), h11.EndOfMessage())]
        return b"".join(piece or b"" for piece in pieces)

    async def _answer(self, *, deadline_s: float) -> HttpAnswer:
        head = await self._next_event(deadline_s=deadline_s, has_head=False)
        if not isinstance(head, h11.Response):
            raise AnswerBroken("the connection was closed without an answer")
        answer = HttpAnswer(status=head.status_code, headers=(*head.headers,), body=b"")
        if answer.status != 200:
            return answer
        if answer.header("content-encoding").lower() not in ("", "identity"):
            raise AnswerEncoded("the answer is compressed, which was not requested")
        body = bytearray()
        while True:
            event = await self._next_event(deadline_s=deadline_s, has_head=True)
            if not isinstance(event, h11.Data):
                return msgspec.structs.replace(answer, body=bytes(body))
            body += event.data
            if len(body) > self._limits.answer_max_bytes:
                raise AnswerTooLarge(f"the answer is larger than {self._limits.answer_max_bytes} bytes")

    async def _next_event(self, *, deadline_s: float, has_head: bool) -> object:
        """Return h11's next event. Raise errors detached from h11's, whose texts quote received bytes."""
        loop = asyncio.get_running_loop()
        failure: HttpFailure = NotAnsweredInTime(
            "the answer did not arrive completely in time" if has_head else "no answer in time"
        )
        try:
            while True:
                event = self._http.next_event()
                if loop.time() >= deadline_s:
                    break
                if event is h11.NEED_DATA:
                    until_s = min(loop.time() + self._limits.read_timeout_s, deadline_s)
                    self._http.receive_data(await self._stream.read(until_s=until_s))
                elif not isinstance(event, h11.InformationalResponse):
                    return event
        except TimeoutError:
            pass
        except OSError:
            failure = AnswerBroken("the connection broke before the answer was complete")
        except h11.RemoteProtocolError:
            failure = AnswerBroken(self._breakage(has_head=has_head))
        raise failure

    def _breakage(self, *, has_head: bool) -> str:
        if has_head:
            return "the answer was cut off, or is not proper HTTP"
        if self._http.trailing_data[1]:
            return "the connection was closed without an answer"
        return "the answer is not HTTP"

    def _finish(self) -> None:
        """Get ready for the next exchange, or close after anything but a complete answer without surplus bytes."""
        is_whole = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        if is_whole and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
            self._stream.rest()
        else:
            self._stream.close()
