"""Two caching clients on a real socket: while no task changes, they are sent no further body."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hishel
import requests
from cachecontrol import CacheControl
from hishel.httpx import AsyncCacheClient

from service.model.queries import Range
from tests.http.fake_gateway import NOW_S
from tests.http.site import AUTH, Web

ROUNDS = 4


def renewals(web: Web) -> Iterator[None]:
    """Renew the page repeatedly: newly fetched, its relative range moved, already past its freshness."""
    for turn in range(ROUNDS):
        web.gateway.changes = {
            "fetched_at_ms": int((NOW_S - 4 + turn) * 1000),
            "range": Range(since_s=1_747_000_000 + 60 * turn, until_s=1_752_000_000 + 60 * turn),
            "lifetime_s": 0.0,
        }
        yield


def sent(web: Web) -> list[int]:
    """The status of each answer sent."""
    return [seen.labels.status for seen in web.observed]


async def test_hishel_revalidates_stale_pages(web: Web, tmp_path: Path) -> None:
    """It validates stale answers, gets 304, and gives its caller the body that it holds."""
    storage = hishel.AsyncSqliteStorage(database_path=tmp_path / "cache.db")
    private = hishel.CacheOptions(shared=False)
    async with (
        web.on_a_socket() as port,
        AsyncCacheClient(base_url=f"http://127.0.0.1:{port}", storage=storage, rfc=private) as client,
    ):
        await polls(web, lambda: client.get("/tasks", headers=AUTH))


async def test_cachecontrol_revalidates_stale_pages(web: Web) -> None:
    """requests with CacheControl does the same."""
    with CacheControl(requests.Session()) as session:
        async with web.on_a_socket() as port:
            url = f"http://127.0.0.1:{port}/tasks"
            await polls(web, lambda: asyncio.to_thread(session.get, url, headers=AUTH, timeout=10))


async def polls(web: Web, ask: Any) -> None:
    """Poll while the page is renewed, then while it is fresh."""
    bodies = []
    for _ in renewals(web):
        answer = await ask()
        assert answer.status_code == 200
        bodies.append(answer.content)
    assert sent(web) == [200, *[304] * (ROUNDS - 1)]
    assert len(set(bodies)) == 1
    web.gateway.changes |= {"lifetime_s": 600.0}
    for _ in range(3):
        assert (await ask()).content == bodies[0]
    assert sent(web)[ROUNDS:] == [304]


async def test_the_tag_follows_the_content(web: Web) -> None:
    """The tag changes with a task, the total or the slice, and only with these."""
    tag = (await web.get()).headers["etag"]
    for _ in renewals(web):
        assert (await web.get(headers={"If-None-Match": tag})).status_code == 304
    for changes in ({"body": b'{"id":1,"title":"a"},{"id":2,"title":"c"}'}, {"total": 96}):
        web.gateway.changes = changes
        assert (await web.get(headers={"If-None-Match": tag})).status_code == 200
    web.gateway.changes = {}
    assert (await web.get("/tasks?limit=19", headers={"If-None-Match": tag})).status_code == 200
