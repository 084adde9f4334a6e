"""Unsolicited bytes: no answer is accepted that arrived before its request."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import uvloop

from service.model.errors import UpstreamBroken, UpstreamError
from tests.integration.upstream.bench import PAGE, SECRET, Bench, Connection, Upstream


def answer(total: int) -> bytes:
    """A whole answer with this total."""
    body = json.dumps({**PAGE, "Total": total}).encode()
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n"
BODY = json.dumps({**PAGE, "Total": 7}).encode()


@pytest.mark.parametrize("first", [answer(7), CHUNKED % (len(BODY), BODY)], ids=["length", "chunked"])
@pytest.mark.parametrize("behind", [answer(666), b"x", b"\r\n"], ids=["an answer", "a byte", "a line"])
async def test_bytes_after_an_answer_close_the_connection(bench: Bench, first: bytes, behind: bytes) -> None:
    """The answer is accepted, the connection is closed, and the next call gets its own answer on a new one."""

    async def play(connection: Connection) -> None:
        while await connection.request():
            await connection.send(first + behind)

    bench.upstream.scene = play
    for _ in range(3):
        assert (await bench.fetch()).total == 7
    assert bench.upstream.connections == 3


async def test_bytes_on_an_idle_connection_close_it(bench: Bench) -> None:
    """Any bytes between two calls close the connection, whether or not the event loop has seen them."""

    async def play(connection: Connection) -> None:
        await connection.request()
        await connection.send(answer(1))
        await unasked.wait()
        await connection.send(answer(666))
        sent.set()
        while await connection.request():
            await connection.send(answer(667))

    bench.upstream.scene = play
    for pause_s in (0.0, 0.05):
        unasked, sent = asyncio.Event(), asyncio.Event()
        assert (await bench.fetch()).total == 1
        unasked.set()
        await sent.wait()
        await asyncio.sleep(pause_s)
    assert (await bench.fetch()).total == 1
    assert bench.upstream.connections == 3


@pytest.mark.parametrize("reused", [False, True])
async def test_an_answer_before_the_request_fails_the_call(bench: Bench, reused: bool) -> None:
    """Bytes that come while the call waits for its slot are no answer to it: the call fails, and nothing is kept."""
    go = asyncio.Event()
    came = asyncio.Event()

    async def play(connection: Connection) -> None:
        if reused and await connection.request():
            await connection.send(answer(1))
        await go.wait()
        await connection.send(answer(666))
        came.set()
        await connection.until_closed()

    bench.upstream.scene = play
    if reused:
        assert (await bench.fetch()).total == 1

    async def before_send() -> None:
        go.set()
        await came.wait()
        await asyncio.sleep(0.05)

    with pytest.raises(UpstreamError) as caught:
        await bench.fetch(before_send)
    assert isinstance(caught.value, UpstreamBroken)
    assert caught.value.sent


def test_leftovers_are_detected_on_uvloop(tmp_path: Path) -> None:
    """uvloop reports closed connections in its own way; what holds on asyncio's loop holds there, too."""
    secret_file = tmp_path / "secret"
    secret_file.write_text(SECRET)

    async def scenario() -> None:
        upstream = Upstream()
        server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
        bench = Bench(upstream, server.sockets[0].getsockname()[1], secret_file)
        await test_bytes_after_an_answer_close_the_connection(bench, answer(7), answer(666))
        await bench.client.aclose()
        for reused in (False, True):
            bench.use()
            await test_an_answer_before_the_request_fails_the_call(bench, reused)
            await bench.client.aclose()
        server.close()
        await upstream.all_closed()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scenario())


async def test_concurrent_calls_get_their_own_answers_if_answers_are_doubled(bench: Bench) -> None:
    """Of a hundred concurrent calls each gets the answer to its own request."""
    bench.use(connections=10, call_timeout_s=8.0)

    async def play(connection: Connection) -> None:
        while request := await connection.request():
            number = json.loads(request.split(b"\r\n\r\n", 1)[1])["Offset"]
            await connection.send(answer(1000 + number) * 2)

    bench.upstream.scene = play
    listings: list[Any] = await asyncio.gather(*(bench.fetch(offset=number) for number in range(100)))
    assert [listing.total for listing in listings] == [1000 + number for number in range(100)]
