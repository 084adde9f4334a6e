"""Filtered pages on whole processes: the matching tasks of the whole list, and no more calls than it has blocks."""

from typing import Any

import pytest

from tests.scenes.fleet import fleet
from tests.servers import Server

pytestmark = pytest.mark.scene

WANTED = {"since": "-P60D", "until": "P60D", "sort": "created_at"}


async def test_filtered_pages_are_the_filtered_list(own_valkey: Server) -> None:
    """Followed by their links on another replica, they contain each matching task once, in order."""
    cache = {"fresh_s": 300.0}
    async with fleet(
        own_valkey, replicas=2, tasks=650, sandbox_calls=20, budget={"calls": 20}, cache=cache
    ) as gateways:
        first = await gateways.page(0, wait=30, limit=100, status="pending,dispatching", **WANTED)
        assert first.status == 200, first.json
        blocks = await gateways.calls()
        assert blocks == 7
        whole: list[Any] = []
        found: list[Any] = []
        offset: int | None = 0
        while offset is not None:
            page = await gateways.page(1, wait=30, limit=100, offset=offset, **WANTED)
            whole += page.json["tasks"]
            offset = offset + 100 if 'rel="next"' in page.headers["link"] else None
        offset = 0
        while offset is not None:
            page = await gateways.page(1, limit=100, offset=offset, status="pending,dispatching", **WANTED)
            assert (page.status, page.outcome.split(";")[1], page.json["consistent"]) == (200, " hit", True)
            assert page.json["total"] == first.json["total"]
            found += page.json["tasks"]
            offset = offset + 100 if 'rel="next"' in page.headers["link"] else None
        assert await gateways.calls() == blocks
        assert 0 < len(found) < len(whole)
        assert found == [task for task in whole if task["status"] in {"pending", "dispatching"}]
        assert first.json["total"] == len(found)
        tag = (await gateways.page(1, status="pending", **WANTED)).headers["etag"]
        same = await gateways.page(0, headers={"If-None-Match": tag}, status="pending", **WANTED)
        assert (same.status, same.body) == (304, b"")


async def test_a_range_that_is_too_wide_gets_422(own_valkey: Server) -> None:
    """It gets 422 after one call, with the number of tasks and the bound; a shorter range is served."""
    async with fleet(own_valkey, replicas=1, query={"filter_max_blocks": 2}) as gateways:
        wide = await gateways.page(0, status="pending", **WANTED)
        assert (wide.status, wide.json["type"]) == (422, "/problems/range-too-wide")
        assert wide.json["bound"] == 200 < wide.json["total"]
        assert await gateways.calls() == 1
        narrow = await gateways.page(0, status="pending", since="now", until="PT12H")
        assert narrow.status == 200
        assert {task["status"] for task in narrow.json["tasks"]} == {"pending"}
