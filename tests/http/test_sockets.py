"""Behaviour that only a real socket shows: disconnects, keep-alive, odd bytes, large fields. On the production
server."""

import asyncio
import re
from contextlib import suppress
from typing import Any

import httpx
import msgspec
import pytest

from tests.http.site import AUTH, KEY, Web, raw, served
from tests.servers import until

LARGE = bytes(4_000_000)


def request(target: bytes, *fields: bytes, method: bytes = b"GET") -> bytes:
    """A request that closes its connection."""
    credential = b"Authorization: Bearer " + KEY.encode()
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: gateway", b"Connection: close", credential, *fields]
    return b"\r\n".join([*lines, b"", b""])


async def test_a_request_is_dropped_when_its_caller_disconnects(web: Web, capfd: pytest.CaptureFixture[str]) -> None:
    """A caller that hangs up while waiting is no longer waited for; nothing else in the service notices."""
    web.gateway.go = asyncio.Event()
    async with web.on_a_socket() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"/tasks"))
        await until(lambda: web.gateway.waiting == 1)
        writer.close()
        await until(lambda: web.gateway.cancelled == 1)
        await until(lambda: len(web.observed) == 1)
        assert (web.observed[0].labels.status, web.observed[0].labels.caller, web.observed[0].labels.app) == (
            499,
            "single",
            "shop",
        )
        web.gateway.go.set()
        assert (await raw(port, request(b"/tasks"))).startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in capfd.readouterr().err


async def test_one_of_many_hangs_up(web: Web) -> None:
    """Of three that wait, the one that hangs up is dropped and the others are answered."""
    web.gateway.go = asyncio.Event()
    async with web.on_a_socket() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(b"/tasks"))
        others = [asyncio.create_task(raw(port, request(b"/tasks"))) for _ in range(2)]
        await until(lambda: web.gateway.waiting == 3)
        writer.close()
        await until(lambda: web.gateway.cancelled == 1)
        web.gateway.go.set()
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in await asyncio.gather(*others))
        assert sorted(each.labels.status for each in web.observed) == [200, 200, 499]


async def test_a_connection_is_kept_alive_after_a_wait(web: Web) -> None:
    """A connection on which one request waited long, with hang-up detection, serves the next requests as well."""
    web.gateway.go = asyncio.Event()
    async with web.on_a_socket() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        waiting = asyncio.create_task(client.get("/tasks?limit=1", headers=AUTH))
        await until(lambda: web.gateway.waiting == 1)
        await asyncio.sleep(0.05)  # past the moment when the detection begins, which nothing shows
        web.gateway.go.set()
        assert (await waiting).status_code == 200
        for _ in range(3):
            answer = await client.get("/tasks?limit=1", headers=AUTH)
            assert answer.status_code == 200
            assert answer.headers["link"].startswith("</tasks?")
        assert (await client.head("/tasks?limit=1", headers=AUTH)).headers["content-length"] == str(len(answer.content))
        assert web.gateway.cancelled == 0


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
async def test_a_head_is_read_even_if_its_first_bytes_come_alone(web: Web, length: int) -> None:
    """However few bytes the first packet holds, the request is read when the rest has come."""
    async with web.on_a_socket() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = request(b"/livez")
        writer.write(whole[:length])
        await asyncio.sleep(0.05)  # so that it is a packet of its own
        writer.write(whole[length:])
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/tasks?q=%00", b"400"),
        (b"/tasks?q=%ff%fe", b"400"),
        (b"/tasks?q=\xc3\xa4", b"400"),
        (b"/tasks?q=%C3%A4", b"200"),
        (b"/tasks?q=%F0%9F%92%A9", b"200"),
        (b"/tasks?q=%22%3Cb%3E%22", b"200"),
        (b"/%ff%fe", b"404"),
        (b"/tasks%00", b"404"),
        (b"/%2e%2e/etc/passwd", b"404"),
        (b"//tasks", b"200"),
        (b"/tasks?" + b"x" * 9000, b"414"),
    ],
)
async def test_malformed_targets_never_cause_a_500(web: Web, target: bytes, status: bytes) -> None:
    """Whatever bytes a target holds, the response is a problem of ours and never a 500."""
    async with web.on_a_socket() as port:
        answer = await raw(port, request(target))
    assert answer.split(b" ", 2)[1] == status
    assert b"x-request-id: " in answer


async def test_large_fields_get_431(web: Web) -> None:
    """Fields beyond the bound get a 431 problem; far beyond the server's own bound the connection is closed."""
    async with web.on_a_socket() as port:
        answer = await raw(port, request(b"/tasks", b"X-Large: " + b"x" * 20_000))
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"/problems/headers-too-large" in answer
        many = await raw(port, request(b"/tasks", *(b"X-%d: y" % number for number in range(200))))
        assert many.startswith(b"HTTP/1.1 431 ")
        assert (await raw(port, request(b"/livez"))).startswith(b"HTTP/1.1 200 ")


async def test_bodies_are_refused(web: Web) -> None:
    """A GET with a body is refused with a problem, and the connection is not left in a bad state."""
    async with web.on_a_socket() as port:
        answer = await raw(port, request(b"/tasks", b"Content-Length: 5") + b"hello")
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert web.gateway.requests == []


async def test_a_304_has_no_body(web: Web) -> None:
    """A 304 ends with its fields."""
    async with web.on_a_socket() as port:
        answer = await raw(port, request(b"/tasks", b"If-None-Match: *"))
    assert answer.startswith(b"HTTP/1.1 304 ")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /livez HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: [::1]:8000\r\nConnection: close\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\nHost: 10.0.0.1:80\r\nConnection: close\r\n\r\n", 200),
        (b"GET http://gateway:8000/livez HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
        (b"\r\nGET /livez HTTP/1.0\r\n\r\n", 200),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost:\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET /livez HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET http://u@gateway/livez HTTP/1.1\r\nHost: gateway\r\n\r\n", 400),
        (b"GET ftp://gateway/livez HTTP/1.1\r\nHost: gateway\r\n\r\n", 400),
        (b"GET livez HTTP/1.1\r\nHost: gateway\r\n\r\n", 400),
        (b"GET /livez#x HTTP/1.1\r\nHost: gateway\r\n\r\n", 400),
        (b"GET /livez HTTP/2.0\r\nHost: gateway\r\n\r\n", 400),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\nHost: gateway\n\n\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost : gateway\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: gateway\r\nX: a\r\n b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"CONNECT gateway:80 HTTP/1.1\r\nHost: gateway:80\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"BREW /livez HTTP/1.1\r\nHost: gateway\r\n\r\n", 501),
        (b"GET /" + b"x" * 70_000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    ],
)
async def test_malformed_heads_are_refused_with_a_problem(web: Web, head: bytes, status: int) -> None:
    """Heads that RFC 9112 forbids are refused with a problem and an id, reported like any request, and closed."""
    async with web.on_a_socket() as port:
        answer = await raw(port, head)
        assert (await raw(port, request(b"/livez"))).startswith(b"HTTP/1.1 200 ")
    fields, _, body = answer.partition(b"\r\n\r\n")
    assert int(fields.split(b" ")[1]) == status
    assert (web.observed[0].labels.status, web.observed[0].client) == (status, "127.0.0.1")
    if status != 200:
        request_id = web.observed[0].request_id
        assert f"x-request-id: {request_id}".encode() in fields
        assert b"connection: close" in fields
        problem = msgspec.json.decode(body)
        assert (problem["status"], problem["request_id"]) == (status, request_id)


async def test_pipelined_requests_are_answered_in_order(web: Web) -> None:
    """Pipelined requests are answered one after the other, in their order, and a broken one ends the connection."""
    one = b"GET /%b HTTP/1.1\r\nHost: gateway\r\n\r\n"
    async with web.on_a_socket() as port:
        answer = await raw(port, one % b"livez" + one % b"nowhere" + one % b"readyz" + b"X\r\n\r\n" + one % b"livez")
    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"404", b"200", b"400"]


async def test_an_offer_to_upgrade_is_ignored(web: Web) -> None:
    """An offer to upgrade to another protocol is ignored: the answer is HTTP/1.1, and nothing follows it."""
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\n"
    async with web.on_a_socket() as port:
        answer = await raw(port, head)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1


async def large(scope: Any, receive: Any, send: Any) -> None:
    """Respond with 4 MB."""
    if scope["type"] == "lifespan":
        for event in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{event}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": LARGE})


async def test_connections_with_the_oldest_unread_bytes_are_closed() -> None:
    """Beyond unsent_max_bytes the connections that have held unread bytes for longest are closed.

    The others get their complete answers, and none holds more than a piece.
    """
    async with served(large, unsent_max_bytes=1024 * 1024) as port:
        unread = []
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            unread.append((reader, writer))
            writer.write(request(b"/"))
            await reader.readexactly(1)
        whole = [await _rest(reader) for reader, _ in unread]
        for _, writer in unread:
            writer.close()
    assert sum(whole[:20]) < sum(whole[20:])
    assert 10 < sum(whole) < 38


async def _rest(reader: asyncio.StreamReader) -> bool:
    """Return whether an answer that is read now is complete."""
    count = 0
    with suppress(ConnectionError):
        while piece := await reader.read(65536):
            count += len(piece)
    return count > len(LARGE)
