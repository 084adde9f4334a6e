"""Targets: HTTP as our server reads it from clients, and as our client reads it from the upstream."""

import asyncio
import json
from typing import Any, cast

import h11

from service.cache.codec import CorruptBlock, decode_value, encode_value
from service.http_client.byte_stream import ByteStream
from service.http_client.connection import HttpAnswer, HttpConnection, HttpLimits, HttpRequest
from service.http_client.errors import HttpFailure
from service.model.blocks import block_of
from service.model.queries import At, Query, Range
from service.model.tasks import Listing
from service.server.connection import ClientConnection
from service.server.http_server import HttpServer, ServerLimits, empty_refusal
from service.server.request_head import END, HeadParser, InvalidHead
from service.upstream.list_call import read_listing
from service.upstream.wire import MalformedAnswer, UpstreamRefusal
from tests.fuzz.target import Target

GOOD_HEAD = b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = ServerLimits(
    connections_max=10,
    headers_max_bytes=8192,
    headers_timeout_s=10.0,
    idle_timeout_s=10.0,
    reader_timeout_s=10.0,
    unsent_max_bytes=1024 * 1024,
)
ANSWER_MAX_BYTES = 4096
QUERY = Query(app="shop", since=At(epoch_s=0), until=At(epoch_s=1))


def check_head(data: bytes) -> None:
    """A head is refused with a fitting status, or h11 reads the same request: nothing can be smuggled between them.

    Whatever came before, the next good head is read as what it is.
    """
    heads = HeadParser()
    head = data.partition(END)[0] + END
    try:
        request = heads.parse(head)
    except InvalidHead as exc:
        assert exc.status in (400, 431, 501)
    else:
        scope = request.scope
        assert scope["method"].isupper() or not scope["method"].isalpha()
        assert all(b"\r" not in value and b"\n" not in value and b"\0" not in value for _, value in scope["headers"])
        assert b" " not in scope["raw_path"] + scope["query_string"]
        other = h11.Connection(h11.SERVER)
        other.receive_data(head)
        try:
            event = other.next_event()
        except h11.RemoteProtocolError:
            event = None  # stricter than llhttp in places; what both accept must be the same
        if isinstance(event, h11.Request):
            assert event.method.decode() == scope["method"]
            fields = [field for field in scope["headers"] if field[0] != b"host"]
            assert [field for field in event.headers if field[0] != b"host"] == fields
            if not request.has_more:
                assert isinstance(other.next_event(), h11.EndOfMessage)
    good = heads.parse(GOOD_HEAD)
    assert (good.scope["path"], good.scope["headers"], good.has_more) == ("/good", [(b"host", b"x")], False)


class _Written:
    """A transport that remembers what is written."""

    def __init__(self) -> None:
        self.data = b""
        self.is_closed = False

    def writelines(self, parts: list[bytes]) -> None:
        self.data += b"".join(parts)

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.is_closed = True

    abort = write_eof = close

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> object:
        return ("192.0.2.1", 1) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        del high

    pause_reading = resume_reading = lambda self: None


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Respond with what was parsed."""
    await receive()
    body = repr((scope["method"], scope["raw_path"], scope["query_string"], scope["headers"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": ()})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _answers(pieces: list[bytes]) -> tuple[bytes, bool]:
    """Return the responses of a connection to these pieces, without dates, and whether it is closed then."""
    server = HttpServer(_echo, LIMITS, refusal=lambda status, _: empty_refusal(status))
    server.date_header.line = lambda: b""  # type: ignore[method-assign]
    connection, transport = ClientConnection(server), _Written()
    connection.connection_made(cast(Any, transport))
    for piece in pieces:
        if not transport.is_closed:
            connection.data_received(piece)
        for _ in range(3):
            await asyncio.sleep(0)
    for _ in range(4 * (b"".join(pieces).count(END) + 1)):
        await asyncio.sleep(0)
    assert server.open_connections == 1
    assert server.unsent_bytes <= LIMITS.headers_max_bytes + len(b"".join(pieces))
    return transport.data, transport.is_closed


def check_connection(data: bytes) -> None:
    """Requests in one piece, byte by byte or cut anywhere get the same answers."""

    async def check() -> None:
        whole = await _answers([data])
        middle = len(data) // 2
        assert await _answers([data[:middle], data[middle:]]) == whole
        third = [data[start : start + 3] for start in range(0, len(data), 3)]
        if len(data) < 400:
            assert await _answers(third) == whole
        assert whole[0].count(b"HTTP/1.1 ") <= data.count(b"\n") + 1

    asyncio.run(check())


class _Upstream:
    """The other side of a stream: answers once something was sent."""

    def __init__(self, stream: ByteStream, pieces: list[bytes]) -> None:
        self._stream = stream
        self._pieces = pieces

    def write(self, data: bytes) -> None:
        del data

        def arrive() -> None:
            for piece in self._pieces:
                if not self._stream.is_closed:
                    self._stream.data_received(piece)
            self._stream.eof_received()

        asyncio.get_running_loop().call_soon(arrive)

    def abort(self) -> None:
        """Closed."""

    pause_reading = resume_reading = abort


async def _exchanged(pieces: list[bytes]) -> HttpAnswer | str:
    stream = ByteStream()
    stream.connection_made(cast(Any, _Upstream(stream, pieces)))
    limits = HttpLimits(connect_timeout_s=5.0, read_timeout_s=5.0, connections=1, answer_max_bytes=ANSWER_MAX_BYTES)
    connection = HttpConnection(stream, limits)

    async def at_once() -> None:
        return None

    try:
        return await connection.exchange(
            HttpRequest(method="POST", target="/", host="x", headers=(), body=b"{}"),
            before_send=at_once,
            deadline_s=asyncio.get_running_loop().time() + 5.0,
        )
    except HttpFailure as exc:
        assert str(exc).isprintable()
        return type(exc).__name__


def check_response(data: bytes) -> None:
    """The result is a response within its bound or a failure of ours, independent of how the bytes arrive."""

    async def check() -> None:
        whole = await _exchanged([data])
        assert isinstance(whole, str) or len(whole.body) <= ANSWER_MAX_BYTES
        middle = len(data) // 2
        assert await _exchanged([data[:middle], data[middle:]]) == whole

    asyncio.run(check())


def check_listing(data: bytes) -> None:
    """A listing that is read can be stored and read again, and is valid JSON."""
    try:
        listing = read_listing(data, sdkappid=1_400_000_001, offset=0, want=100)
    except MalformedAnswer as exc:
        assert len(str(exc)) < 300
        return
    if isinstance(listing, UpstreamRefusal):
        return
    assert isinstance(listing, Listing)
    assert len(listing.tasks) + listing.left_out <= 100
    block = block_of(listing, query=QUERY, range_=Range(since_s=0, until_s=1), fetched_at_ms=1_750_000_000_000)
    again = decode_value(encode_value(block, chance=b"123456"))
    assert not isinstance(again, CorruptBlock), again
    assert again == block
    for record in block.records(0, 100):
        task = json.loads(record)
        assert isinstance(task["id"], int)
        assert set(task) == set(listing.tasks[0].__struct_fields__)


_RECORD = b'{"TaskID":1,"Sdkappid":1400000001,"Type":"All","Status":"pending","Title":"a","Content":{"x":1}}'

TARGETS = (
    Target(
        name="request_head",
        check=check_head,
        pieces=(
            *(b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"\0", b"GET ", b"/", b" HTTP/1.1", b" HTTP/1.0", b"Host: x"),
            *(
                b"Content-Length: 0",
                b"Content-Length: 5",
                b"Transfer-Encoding: chunked",
                b"Connection: upgrade",
                b"X: y",
            ),
            *(b"Upgrade: h2c", b"http://a@b/", b"*", b"OPTIONS ", b"Connection: close", b"\r\n "),
        ),
    ),
    Target(
        name="connection",
        check=check_connection,
        pieces=(
            GOOD_HEAD,
            b"\r\n",
            b"\n",
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
            b"HEAD ",
            b"X: y\r\n",
        ),
    ),
    Target(
        name="response",
        check=check_response,
        pieces=(
            *(
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"\r\n",
                b"\n",
                b"Content-Length: 2\r\n",
                b"{}",
            ),
            *(
                b"Transfer-Encoding: chunked\r\n",
                b"0\r\n\r\n",
                b"2\r\n{}\r\n",
                b"Content-Encoding: gzip\r\n",
                b"x" * 5000,
            ),
            *(
                b"Connection: close\r\n",
                b"HTTP/1.0 200\r\n",
                b"Content-Length: 99999999999999999999\r\n",
                b"ffffffffffffffff\r\n",
            ),
        ),
    ),
    Target(
        name="listing",
        check=check_listing,
        pieces=(
            *(
                b'{"ErrorCode":0,"Total":3,"Tasks":[',
                b"]}",
                _RECORD,
                b",",
                b'"TaskID":',
                b"null",
                b"1e3",
                b'"',
                b"\\ud800",
            ),
            *(
                b'"2025-05-01 24:00:00"',
                b'"CreateAt":',
                b'"Content":',
                b"[" * 300,
                b"\xff",
                b"9" * 30,
                b"-0",
                b"1.0",
                b"\\u0000",
            ),
        ),
    ),
)
