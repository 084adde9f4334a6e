"""`make bench-fetch`: the cost of a fetch compared with the same call made directly, in alternating pairs of
requests."""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from service.model.queries import At, Query, Range
from service.sandbox.upstream import APPS
from service.settings import AppSettings, UpstreamSettings
from service.upstream.apps import upstream_app_of
from service.upstream.client import UpstreamClient
from service.upstream.secret import FileSecret
from service.upstream.signer import Signer
from tests.bench.machine import facts, table
from tests.scenes.fleet import Fleet, fleet, key_of, path
from tests.servers import Server

ROUNDS = 400
SPARE_S = 0.03
"""Between two pairs: so that a slot is free whenever a page is requested."""
BUDGET = {"calls": 5, "window_s": 0.02, "transit_s": 0.5}
"""One that never makes a fetch wait."""

PAGE = """# The cost of a fetch

One run of `make bench-fetch`. The figures depend on the machine: compare ratios, not numbers.

{facts}; Valkey and the sandbox over loopback. {rounds} rounds, each with one request of every kind on a persistent
connection; medians of the differences within a round.

{table}
"""


class KeptConnection:
    """One HTTP/1.1 connection to a gateway, kept from request to request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def get(self, target: str, *, fields: str = "") -> bytes:
        """Return the head of the answer to one request."""
        key = key_of("c0")
        self._writer.write(
            f"GET {target} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n{fields}\r\n".encode()
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.split(b":")[1]))
        return head


async def timed_ms(work: Callable[[], Awaitable[object]]) -> float:
    """Return how long it takes, in milliseconds."""
    begun_s = time.perf_counter()
    await work()
    return (time.perf_counter() - begun_s) * 1000


async def _pairs(gateways: Fleet, directory: Path) -> dict[str, list[float]]:
    secret = directory / "secret"
    secret.write_text(APPS[0].key)
    app = upstream_app_of(
        APPS[0].name,
        AppSettings(
            sdkappid=APPS[0].sdkappid, admin=APPS[0].admin, base_url=gateways.upstream_url, secret_file=str(secret)
        ),
        backup_hosts=False,
    )
    took: dict[str, list[float]] = {"direct": [], "fetch": [], "hit": []}
    async with AsyncExitStack() as parts:
        signer = Signer(app, FileSecret(str(secret)), valid_s=86_400)
        client = await parts.enter_async_context(aclosing(UpstreamClient(UpstreamSettings(), signers=[signer])))
        reader, writer = await asyncio.open_connection("127.0.0.1", gateways.replicas[0].port)
        parts.callback(writer.close)
        connection = KeptConnection(reader, writer)
        now_s = int(time.time())

        async def call_directly() -> None:
            query = Query(app=app.name, since=At(epoch_s=now_s - 604_800), until=At(epoch_s=now_s))
            range_ = Range(since_s=now_s - 604_800, until_s=now_s)
            await client.fetch(app, query, range_, offset=0, want=100, before_send=_at_once)

        for number in range(ROUNDS + 10):
            target = path(q=f"fetch {number}")

            async def fetch(target: str = target) -> None:
                head = await connection.get(target)
                assert b"fwd=miss" in head, head

            async def hit(target: str = target) -> None:
                head = await connection.get(target, fields="Cache-Control: max-age=3600\r\n")
                assert b"taskgate; hit" in head, head

            kinds: list[tuple[str, Callable[[], Awaitable[None]]]] = [("direct", call_directly), ("fetch", fetch)]
            for name, work in kinds if number % 2 else reversed(kinds):
                took[name].append(await timed_ms(work))
            took["hit"].append(await timed_ms(hit))
            await asyncio.sleep(SPARE_S)
    return {name: each[10:] for name, each in took.items()}


async def _at_once() -> None:
    """Send without waiting."""


async def _page() -> str:
    with Server() as server:
        async with fleet(server, replicas=1, budget=BUDGET, sandbox_calls=1000) as gateways:
            took = await _pairs(gateways, gateways.replicas[0].configuration.parent)
    more = [fetch - direct for fetch, direct in zip(took["fetch"], took["direct"], strict=True)]
    rest = [whole - hit for whole, hit in zip(more, took["hit"], strict=True)]
    rows = [
        ("the call itself, made directly", _ms(took["direct"])),
        ("a page that must be fetched", _ms(took["fetch"])),
        ("so the gateway adds, with HTTP on both sides", _ms(more)),
        ("a page from memory", _ms(took["hit"])),
        ("so a fetch adds to the call", _ms(rest)),
    ]
    return PAGE.format(facts=facts(), rounds=ROUNDS, table=table(("request", "median (quartiles)"), rows))


def _ms(values: list[float]) -> str:
    first, middle, last = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ms ({first:.2f} to {last:.2f})"


if __name__ == "__main__":
    started_s = time.monotonic()
    page = asyncio.run(_page())
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(page, encoding="utf-8")
    print(page)
    print(f"took {time.monotonic() - started_s:.0f} s", file=sys.stderr)
