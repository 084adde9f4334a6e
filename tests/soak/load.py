"""The load of a soak: mixed requests until cancelled."""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

from tests.scenes.fleet import APP, Fleet, Got, key_of
from tests.settings import hashed

EXPECTED = {200, 429, 502, 503, 504}
"""Acceptable answers while the upstream or Redis is in trouble; anything else is a fault of ours."""


def _caller(name: str, **more: object) -> dict[str, object]:
    return {"keys": [hashed(key_of(name))], "apps": [APP.name]} | more


CALLERS = {f"c{number}": _caller(f"c{number}") for number in range(12)} | {
    "rare": _caller("rare"),
    "operator": _caller("operator", operator=True),
}


class Load:
    """Sends requests to any replica, and counts the answers."""

    def __init__(self, gateways: Fleet, seen: Counter[str]) -> None:
        self.gateways = gateways
        self._seen = seen

    def count(self, kind: str, got: Got) -> None:
        """Count an answer, as expected or not."""
        self._seen[f"{kind}: {got.status}" if got.status in EXPECTED else f"unexpected: {kind} {got.status}"] += 1

    async def page(self, kind: str, **query: Any) -> None:
        """One page of any replica."""
        try:
            self.count(kind, await self.gateways.page(random.randrange(len(self.gateways.replicas)), **query))
        except OSError as exc:
            self._seen[f"unexpected: {kind} {type(exc).__name__}"] += 1

    async def gone(self) -> None:
        """Request one page and hang up before the response."""
        asked = asyncio.ensure_future(self.page("hang-ups", caller="c1", q=f"gone {random.randrange(200)}", wait=10))
        await asyncio.wait({asked}, timeout=random.uniform(0, 0.5))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        self._seen["hang-ups: asked"] += 1

    async def purge(self) -> None:
        """Drop all stored blocks."""
        replica = random.randrange(len(self.gateways.replicas))
        self.count(
            "purges",
            await self.gateways.ask(replica, f"/cache?app={APP.name}", caller="operator", method="DELETE"),
        )


def mixed(load: Load) -> Iterator[Coroutine[Any, Any, None]]:
    """The whole load, endless; cancel it."""
    for number in range(4):
        yield _hits(load, f"c{number}")
    for number in range(4, 10):
        yield _pages(load, f"c{number}")
    for _ in range(3):
        yield _hang_ups(load)
    yield _streams(load)
    yield _rare(load)
    yield _purges(load)


async def _hits(load: Load, caller: str) -> None:
    while True:
        await load.page("hits", caller=caller, q=f"hit {random.randrange(3)}", wait=5)
        await asyncio.sleep(0.02)


async def _pages(load: Load, caller: str) -> None:
    while True:
        since = f"-P{random.randrange(1, 60)}D"
        await load.page("pages", caller=caller, since=since, offset=random.randrange(5) * 100, limit=100, wait=3)
        await asyncio.sleep(random.uniform(0, 0.2))


async def _hang_ups(load: Load) -> None:
    while True:
        await load.gone()
        await asyncio.sleep(0.05)


async def _streams(load: Load) -> None:
    while True:
        await load.page("streams", caller="c10", wait=20, headers={"Accept": "application/x-ndjson"})
        await asyncio.sleep(1)


async def _rare(load: Load) -> None:
    while True:
        await asyncio.sleep(5)
        await load.page("rare", caller="rare", q=f"rare {random.randrange(1000)}", wait=10)


async def _purges(load: Load) -> None:
    while True:
        await asyncio.sleep(15)
        await load.purge()
