"""Connections of callers in the metrics: how many there are, what they hold, and why the server closed them."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack

from service.server.exchange import ABORT_REASONS
from tests.integration.telemetry.scraping import Scrape, scraped
from tests.scenes.fleet import APP, Replica, fleet, key_of
from tests.servers import Server

SERVER = {"connections_max": 6, "headers_timeout_s": 1.0, "idle_timeout_s": 3.0, "log_format": "json"}


def opened(port: int, sent: bytes = b"") -> socket.socket:
    """A connection with a small receive buffer, on which this was sent."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", port))
    connection.sendall(sent)
    return connection


def request(target: str, *fields: str) -> bytes:
    """A request of the caller c0."""
    lines = [f"GET {target} HTTP/1.1", "Host: x", f"Authorization: Bearer {key_of('c0')}", *fields]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def scrape_when(replica: Replica, condition: Callable[[Scrape], bool]) -> Scrape:
    """The metrics once a condition holds."""
    async with asyncio.timeout(20):
        while not condition(scrape := await scraped(replica.metrics_port)):
            await asyncio.sleep(0.05)
    return scrape


def aborted(scrape: Scrape, reason: str) -> float:
    """How many connections were closed for a reason."""
    return scrape.sum("taskgate_connections_aborted_total", reason=reason)


async def test_connections_and_their_ends(valkey: Server) -> None:
    """Every reason is there from the start; those that a client can cause are counted as what they are."""
    async with fleet(valkey, replicas=1, weights={"c0": 1.0}, server=SERVER, tasks=10_000) as at:
        (replica,) = at.replicas
        with ExitStack() as sockets:

            def hold(sent: bytes = b"") -> socket.socket:
                return sockets.enter_context(opened(replica.port, sent))

            scrape = await scraped(replica.metrics_port)
            assert {sample.labels["reason"] for sample in scrape.of("taskgate_connections_aborted_total")} == {
                *ABORT_REASONS
            }
            hold(b"GET /livez HTTP/1.1\r\nHost: half a head")
            scrape = await scrape_when(replica, lambda scrape: aborted(scrape, "head") == 1)
            stream = request(f"/tasks?app={APP.name}", "Accept: application/x-ndjson")
            streams = [hold(stream) for _ in range(3)]
            await scrape_when(replica, lambda scrape: scrape.sum("taskgate_requests_in_flight") == 3)
            scrape = await scrape_when(replica, lambda scrape: scrape.sum("taskgate_unsent_bytes") > 10_000)
            assert scrape.sum("taskgate_requests_in_flight") == scrape.sum("taskgate_connections") == 3
            for _ in range(4):
                hold()
            scrape = await scrape_when(replica, lambda scrape: aborted(scrape, "room") == 1)
            assert scrape.sum("taskgate_connections") == SERVER["connections_max"]
            scrape = await scrape_when(replica, lambda scrape: aborted(scrape, "idle") == 3)
            streams += [hold(stream) for _ in range(3)]
            await scrape_when(replica, lambda scrape: scrape.sum("taskgate_requests_in_flight") == 6)
            assert hold().recv(1000).startswith(b"HTTP/1.1 503 ")
            scrape = await scrape_when(replica, lambda scrape: aborted(scrape, "full") == 1)
            for each in streams:
                each.close()
            scrape = await scrape_when(replica, lambda scrape: scrape.sum("taskgate_requests_in_flight") == 0)
            assert scrape.sum("taskgate_unsent_bytes") == 0
            endless = hold(request("/livez", "Content-Length: 9999999"))
            with_body = b"x" * 65_536
            try:
                while True:
                    endless.sendall(with_body)
            except OSError:
                pass
            await scrape_when(replica, lambda scrape: aborted(scrape, "linger") == 1)
