"""Real pages through whole processes: two gateways on one Valkey, judged by the upstream's own list and counts."""

import asyncio
import html
import json
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import pytest_asyncio

from service.sandbox.faults import ErrorCode
from tests.scenes.fleet import APP, Fleet, Got, fleet, get, key_of
from tests.servers import Server

pytestmark = [pytest.mark.scene, pytest.mark.asyncio(loop_scope="module")]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
RANGE = {"since": f"{TODAY - timedelta(days=50):%Y-%m-%d}", "until": f"{TODAY + timedelta(days=50):%Y-%m-%d}"}
SORTS = {
    "scheduled_at": ("schedat", True),
    "-scheduled_at": ("schedat", False),
    "created_at": ("createat", True),
    "-created_at": ("createat", False),
}
QUICK = 500
"""Calls in a second where the limit is not the subject."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two() -> AsyncIterator[Fleet]:
    """Two gateways that may call often; blocks stay fresh for as long as the tests run."""
    with Server() as valkey:
        quick = {"budget": {"calls": QUICK, "transit_s": 0.2}, "cache": {"fresh_s": 300.0, "memory_bytes": 0}}
        async with fleet(valkey, replicas=2, tasks=450, sandbox_calls=QUICK, **quick) as gateways:
            yield gateways


def upstreams_own(base_url: str, signature: str, *, sort: str, keyword: str | None) -> list[dict[str, Any]]:
    """The whole list from the sandbox itself, requested without any of our code."""
    order_by, ascending = SORTS[sort]
    body = {
        "Sdkappid": APP.sdkappid,
        "Offset": 0,
        "Want": 2000,
        "OrderBy": order_by,
        "Asc": ascending,
        "BeginTime": f"{RANGE['since']} 00:00:00",
        "EndTime": f"{RANGE['until']} 23:59:59",
    } | ({"Keyword": keyword} if keyword else {})
    asked = {"usersig": signature, "identifier": APP.admin, "sdkappid": APP.sdkappid, "random": 7}
    target = f"{base_url}/v4/timpush/list_sched_task?{urlencode(asked)}&contenttype=json"
    with urllib.request.urlopen(target, data=json.dumps(body).encode(), timeout=30) as answer:  # noqa: S310 ours
        listing = json.load(answer)
    assert listing["ErrorCode"] == 0, listing
    assert listing["Total"] == len(listing["Tasks"])
    tasks: list[dict[str, Any]] = listing["Tasks"]
    return tasks


def stable_fields(task: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of one of our tasks that don't change with the clock."""
    return {
        name: task[name] for name in ("id", "type", "title", "description", "created_at", "scheduled_at", "content")
    }


def as_ours(task: dict[str, Any]) -> dict[str, Any]:
    """Return the same fields of one of the upstream's tasks."""
    return {
        "id": task["TaskID"],
        "type": task["Type"].lower(),
        "title": task["Title"],
        "description": task["Desc"],
        "created_at": task["CreateAt"].replace(" ", "T") + "Z",
        "scheduled_at": task["SchedAt"].replace(" ", "T") + "Z",
        "content": task["Content"],
    }


def linked(got: Got) -> dict[str, dict[str, str]]:
    """The parameters of each link, by its relation."""
    return {
        relation: dict(parse_qsl(urlsplit(target).query))
        for target, relation in re.findall(r'<([^>]*)>; *rel="(\w+)"', got.headers["link"])
    }


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("keyword", [None, "sale", "限时"])
async def test_paging_by_links_gives_the_upstreams_own_list(
    two: Fleet, usersig: Callable[..., str], sort: str, keyword: str | None
) -> None:
    """Following `next` from `first` to the end, on both replicas in turn, yields each task once, in the upstream's
    order."""
    query = RANGE | {"sort": sort, "limit": "70"} | ({"q": keyword} if keyword else {})
    got = await two.page(0, **query)
    listed, pages = list(got.json["tasks"]), 1
    assert linked(got)["first"]["offset"] == "0"
    while (links := linked(got)).get("next"):
        got = await two.page(pages % 2, **links["next"])
        assert got.status == 200, got.json
        listed += got.json["tasks"]
        pages += 1
        assert linked(got)["prev"]["offset"] == str(got.json["offset"] - 70)
    assert links["last"]["offset"] == str(got.json["offset"])
    signature = usersig(identifier=APP.admin, sdkappid=APP.sdkappid, key=APP.key, time_s=int(time.time()))
    own = await asyncio.to_thread(upstreams_own, two.upstream_url, signature, sort=sort, keyword=keyword)
    assert len(own) > (10 if keyword else 300)
    assert got.json["total"] == len(own)
    assert [stable_fields(task) for task in listed] == [as_ours(task) for task in own]


async def test_a_page_across_two_blocks_costs_two_calls_and_then_none(two: Fleet) -> None:
    """Tasks 90 to 109 cost two calls; requested again, on either replica, none; and they equal the blocks' content."""
    before = await two.calls()
    query = RANGE | {"q": "#", "limit": 20}
    across = await two.page(0, **query, offset=90)
    assert await two.calls() - before == 2
    again = [await two.page(replica, **query, offset=90) for replica in (0, 1)]
    left, right = await two.page(1, **query, offset=80), await two.page(1, **query, offset=100)
    assert await two.calls() - before == 2
    assert {each.body for each in again} == {across.body}
    assert all("; hit" in each.outcome for each in again), again
    assert across.json["tasks"] == left.json["tasks"][10:] + right.json["tasks"][:10]


async def test_nothing_beyond_the_end_is_fetched(two: Fleet) -> None:
    """Once a block reports the total, a page beyond it is empty, reports the total, and costs no call."""
    query = RANGE | {"q": "order"}
    total = (await two.page(0, **query)).json["total"]
    before = await two.calls()
    beyond = await two.page(1, **query, offset=10_000)
    assert (beyond.status, beyond.json["tasks"], beyond.json["total"]) == (200, [], total)
    assert "next" not in linked(beyond)
    assert await two.calls() == before


async def test_a_refusal_of_the_parameters_is_remembered(two: Fleet) -> None:
    """A range that is too long for the upstream is a 422 with its text; requested again, it costs no call."""
    before = await two.calls()
    got = [await two.page(replica, since="2020-01-01", until="2024-01-01") for replica in (0, 0, 1)]
    assert await two.calls() - before == 1
    assert {each.status for each in got} == {422}
    assert {each.json["upstream_code"] for each in got} == {90104}
    assert all(each.json["upstream_text"] for each in got)


async def test_each_problem_explains_itself(two: Fleet) -> None:
    """Each failure has a type whose page says, as text and as HTML, what it means and what to do."""
    await two.upstream.add_fault(ErrorCode(code=91000, text="internal", sdkappid=APP.sdkappid))
    port = two.replicas[0].port
    got = [
        await two.page(0, q="failing"),
        await two.page(0, limit=0),
        await two.page(0, headers={"Cache-Control": "only-if-cached"}, q="not stored"),
        await get(port, "/tasks"),
        await get(port, "/nothing"),
        await get(port, "/tasks", {"Authorization": f"Bearer {key_of('c0')}"}, method="DELETE"),
    ]
    await two.upstream.clear_faults()
    assert [each.status for each in got] == [502, 400, 504, 401, 404, 405]
    assert len({each.json["type"] for each in got}) == len(got)
    for each in got:
        assert each.headers["content-type"] == "application/problem+json"
        assert each.json["request_id"] == each.headers["x-request-id"]
        for accept in ("*/*", "text/html"):
            page = await get(port, each.json["type"], {"Accept": accept})
            assert page.status == 200
            listing = html.unescape(page.body.decode())
            assert each.json["title"] in listing
            assert "What to do: " in listing


async def test_two_replicas_hold_the_limit_together(own_valkey: Server) -> None:
    """20 pages of 10 callers at once on two replicas: all are served, and never 6 calls in any second."""
    async with fleet(own_valkey, replicas=2) as gateways:
        got = await asyncio.gather(
            *(gateways.page(n % 2, caller=f"c{n // 2}", wait=30, q=f"burst {n}", limit=1) for n in range(20))
        )
        assert {each.status for each in got} == {200}
        assert await gateways.calls() == 20
        assert await gateways.worst_second() <= 5


async def test_a_changed_secret_is_picked_up_and_lifts_a_stop(own_valkey: Server) -> None:
    """A wrong secret stops calls, with a text that says so; the right one, in the same file, resumes them without a
    restart."""
    settings = {"budget": {"calls": 100, "transit_s": 0.2}, "upstream": {"stopped_s": 600}}
    async with fleet(own_valkey, replicas=1, sandbox_calls=100, **settings) as gateways:
        gateways.write_secret("0" * 64)
        async with asyncio.timeout(30):
            number = 0
            while (got := await gateways.page(0, q=f"wrong {number}")).status == 200:  # looked at once a second
                number += 1
                await asyncio.sleep(0.05)
        assert (got.status, got.json["type"]) == (502, "/problems/calls-stopped")
        assert "the secret is most likely wrong" in got.json["detail"]
        before = await gateways.calls()
        assert [(await gateways.page(0, q=f"stopped {n}")).status for n in range(5)] == [502] * 5
        assert await gateways.calls() == before
        gateways.write_secret(APP.key)
        async with asyncio.timeout(30):
            while (got := await gateways.page(0, q="right again")).status != 200:
                await asyncio.sleep(0.05)
        assert gateways.replicas[0].process is not None
        assert gateways.replicas[0].process.poll() is None
