"""The readers of streams, on real sockets: slow ones, and those that hang up."""

import asyncio
import socket
from contextlib import nullcontext
from typing import Any

import msgspec

from service.model.long_lists import ListPosition
from service.model.streams import TaskFilter
from service.observe.request import RequestContext
from service.web.identify import Access
from service.web.stream import TaskStream
from tests.http.fake_gateway import task_of
from tests.http.site import KEY, Web, raw
from tests.servers import until


def request(*, close: bool = True) -> bytes:
    """A request for a stream."""
    connection = b"close" if close else b"keep-alive"
    return (
        b"GET /tasks HTTP/1.1\r\nHost: gateway\r\nAccept: application/x-ndjson\r\nConnection: "
        + connection
        + b"\r\nAuthorization: Bearer "
        + KEY.encode()
        + b"\r\n\r\n"
    )


async def test_the_first_block_is_sent_before_the_second_is_there(web: Web) -> None:
    """The first tasks arrive while the second block is still awaited, on one connection and the next request."""
    web.gateway.chunk_outcomes[100] = go = asyncio.Event()
    async with web.on_a_socket() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(request(close=False))
            async with asyncio.timeout(20):
                assert b'"id":1099,' in await reader.readuntil(b'"id":1099,')
                go.set()
                assert b'"complete":true' in await reader.readuntil(b"0\r\n\r\n")
            go.clear()
        writer.close()


async def test_a_disconnected_reader_ends_fetching(web: Web) -> None:
    """A reader that hangs up in the middle is no longer waited for, and no further block is requested."""
    web.gateway.chunk_outcomes[100] = asyncio.Event()
    async with web.on_a_socket() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request())
        async with asyncio.timeout(20):
            await reader.readuntil(b'"id":1099,')
        writer.close()
        await until(lambda: web.gateway.cancelled == 1)
        await until(lambda: len(web.observed) == 1)
        assert (web.observed[0].labels.status, web.observed[0].labels.outcome) == (200, "hung-up")
        assert len(web.gateway.requests) == 2


async def test_fetching_pauses_while_the_reader_does_not_read(web: Web) -> None:
    """No more blocks are requested than fit into the connection; when reading resumes, the whole list arrives."""
    large = b'"' + b"x" * 4000 + b'"'
    web.gateway.listed = tuple(msgspec.json.encode(task_of(number, content=large)) for number in range(20_000))
    async with web.on_a_socket() as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(request())
            asked = -1
            while asked != len(web.gateway.requests):  # until it stalls
                asked = len(web.gateway.requests)
                await asyncio.sleep(0.3)
            assert asked < 50
            client.setblocking(False)
            got, loop = bytearray(), asyncio.get_running_loop()
            async with asyncio.timeout(30):
                while part := await loop.sock_recv(client, 1 << 20):
                    got += part
        assert len(web.gateway.requests) == 200
        assert b'"count":20000' in got[-400:]


async def test_a_stalled_reader_is_cut_off(web: Web) -> None:
    """A client that reads nothing for too long is cut off, without a last line and without the end of the body."""
    web.gateway.chunk_outcomes[100] = asyncio.Event()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        return await asyncio.Event().wait()  # type: ignore[return-value]  # it never returns

    await web.get("/tasks?offset=0")
    ask = web.gateway.requests[0]
    context = RequestContext(request_id="x", fields={})
    first = await web.gateway.chunk(ask)

    access = Access(RequestContext(request_id="x", fields={}), web.callers, ask.caller, app="shop", clock=lambda: 0.0)
    reply = TaskStream(
        web.gateway,
        ask,
        first,
        start=ListPosition(parts=(ask.query,)),
        only=TaskFilter(),
        context=context,
        in_flight=nullcontext(),
        access=access,
        link=str,
        reader_max_s=0.05,
    )
    await asyncio.wait_for(reply({}, receive, send), 20)
    assert context.hung_up
    assert [message.get("more_body") for message in sent] == [None, True]


async def test_a_stream_that_is_cut_off_has_no_last_line(web: Web) -> None:
    """The bytes of a whole stream end with its last line and the end of the body."""
    async with web.on_a_socket() as port:
        answer = await raw(port, request())
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert b'{"end":{"complete":true' in answer
