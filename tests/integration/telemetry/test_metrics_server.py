"""The operators' listener: its answers, and what it does not tolerate."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry, Info, make_asgi_app

from service.telemetry.metrics_server import LIMITS, CannotServeMetrics, serving_metrics
from tests.http.site import raw

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class Broken:
    """A collector with a fault, which goes away."""

    is_broken = True

    def collect(self) -> list[Any]:
        """Fail once."""
        if self.is_broken:
            self.is_broken = False
            raise RuntimeError("a fault of ours")
        return []


def metrics(*collectors: Any) -> Any:
    """An app that shows one metric, and these."""
    registry = CollectorRegistry(auto_describe=False)
    Info("scraped", "A metric.", registry=registry)
    for each in collectors:
        registry.register(each)
    return make_asgi_app(registry)


async def probes(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """An open port."""
    async with serving_metrics(metrics(), probes=probes, host="127.0.0.1", port=0) as at:
        yield at


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n", 200),
        (b"GET /metrics?name=x HTTP/1.0\r\nHost: x\r\n\r\n", 200),
        (b"GET /metrics HTTP/1.0\r\n\r\n", 200),
        (b"POST /metrics HTTP/1.0\r\n\r\n", 405),
        (b"GET / HTTP/1.0\r\n\r\n", 404),
        (b"GET /tasks HTTP/1.0\r\n\r\n", 404),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * LIMITS.headers_max_bytes + b"\r\n\r\n", 431),
    ],
)
async def test_only_a_get_of_metrics_is_answered(port: int, head: bytes, status: int) -> None:
    """Any other method, path, protocol, or a head that is too large is refused with its own status."""
    answer = await raw(port, head)
    assert int(answer.split(b" ")[1]) == status
    assert (b"allow: GET, HEAD" in answer) == (status == 405)
    assert (b"# HELP scraped_info" in answer) == (status == 200)


@pytest.mark.parametrize("path", [b"/livez", b"/readyz"])
async def test_probes_are_served_on_the_metrics_port(port: int, path: bytes) -> None:
    """Probes are passed to the app."""
    answer = await raw(port, b"GET " + path + b" HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n" + path)


async def test_a_silent_connection_is_closed() -> None:
    """A connection that sends no complete head in time is closed without an answer."""
    limits = msgspec.structs.replace(LIMITS, headers_timeout_s=0.05)
    async with serving_metrics(metrics(), probes=probes, host="127.0.0.1", port=0, limits=limits) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at)
        writer.write(b"GET /metr")
        async with asyncio.timeout(20):
            assert await reader.read() == b""
        writer.close()


async def test_silent_connections_do_not_block_scrapes(port: int) -> None:
    """With the maximum of silent connections, a scrape is answered, and the oldest of them is closed."""
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(LIMITS.connections_max)]
    assert b" 200 " in await raw(port, SCRAPE)
    async with asyncio.timeout(20):
        assert await held[0][0].read() == b""
    reader, writer = held[-1]
    writer.write(SCRAPE)
    assert b" 200 " in await reader.read()
    for _, each in held:
        each.close()


async def test_closing_does_not_wait_for_scrapers() -> None:
    """With a scraper that never ends its request, the port closes at once and leaves no task behind."""
    before = asyncio.all_tasks()
    async with asyncio.timeout(4):
        async with serving_metrics(metrics(), probes=probes, host="127.0.0.1", port=0) as at:
            _, writer = await asyncio.open_connection("127.0.0.1", at)
            writer.write(b"GET ")
            await writer.drain()
    writer.close()
    assert asyncio.all_tasks() == before


async def test_a_taken_port_is_reported(port: int) -> None:
    """A second process on the same port does not start without its metrics."""
    with pytest.raises(CannotServeMetrics, match=f"127.0.0.1 port {port}"):
        async with serving_metrics(metrics(), probes=probes, host="127.0.0.1", port=port):
            pass


async def test_a_fault_in_the_metrics_is_a_500() -> None:
    """If the text can't be made, the scrape fails, the next one is answered, and nothing else is affected."""
    async with serving_metrics(metrics(Broken()), probes=probes, host="127.0.0.1", port=0) as at:
        assert b" 500 " in await raw(at, SCRAPE)
        assert b" 200 " in await raw(at, SCRAPE)
