"""The port for metrics: what it answers, and what it does not put up with."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.telemetry import exposition
from service.telemetry.exposition import CONNECTIONS_MAX, HEAD_MAX_BYTES, CannotExpose, exposed
from tests.integration.telemetry.scraping import ask


def text(accept: str) -> tuple[str, bytes]:
    """What is told."""
    return "text/plain", f"accept {accept.strip()}\n".encode()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """An open port."""
    async with exposed(text, host="127.0.0.1", port=0) as at:
        yield at


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\n\r\n", 200),
        (b"GET /metrics?name=x HTTP/1.0\r\nHost: x\r\n\r\n", 200),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * HEAD_MAX_BYTES + b"\r\n\r\n", 431),
    ],
)
async def test_only_a_get_of_metrics_is_answered(port: int, head: bytes, status: int) -> None:
    """Any other method, path, protocol, or a head that is too large is refused with its own status."""
    answer = await ask(port, head)
    assert int(answer.split(b" ")[1]) == status
    assert (b"Allow: GET" in answer) == (status == 405)
    assert (b"accept" in answer) == (status == 200)


async def test_who_says_nothing_is_let_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that sends no whole head is closed when its time is over, without an answer."""
    monkeypatch.setattr(exposition, "REQUEST_S", 0.05)
    assert await ask(port, b"GET /metr") == b""


async def test_connections_are_bounded(port: int) -> None:
    """One more connection than there may be is closed at once, and there is room again when one has gone."""
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
    with pytest.raises(ConnectionResetError):
        await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    reader, writer = held.pop()
    writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert b" 200 " in await reader.read()
    assert b" 200 " in await ask(port, b"GET /metrics HTTP/1.1\r\n\r\n")
    for _, each in (*held, (reader, writer)):
        each.close()


async def test_closing_waits_for_nobody() -> None:
    """With a scraper that never ends its request, the port closes at once and leaves no task behind."""
    before = asyncio.all_tasks()
    async with asyncio.timeout(1):
        async with exposed(text, host="127.0.0.1", port=0) as at:
            reader, writer = await asyncio.open_connection("127.0.0.1", at)
            writer.write(b"GET ")
            await asyncio.sleep(0.01)
        assert await reader.read() == b""
    writer.close()
    assert asyncio.all_tasks() == before


async def test_a_taken_port_is_told(port: int) -> None:
    """A second process on the same port does not start without its metrics."""
    with pytest.raises(CannotExpose, match=f"127.0.0.1 port {port}"):
        async with exposed(text, host="127.0.0.1", port=port):
            pass


async def test_a_fault_in_the_metrics_is_a_500() -> None:
    """Where the text can't be made, the scrape fails, the next one is answered, and nothing else is hurt."""
    faults = [RuntimeError("a fault of ours")]

    def faulty(accept: str) -> tuple[str, bytes]:
        if faults:
            raise faults.pop()
        return text(accept)

    async with exposed(faulty, host="127.0.0.1", port=0) as at:
        assert b" 500 " in await ask(at, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert b" 200 " in await ask(at, b"GET /metrics HTTP/1.1\r\n\r\n")
