"""The last line of a stream: failures, reloads, bounds and lists that change while they are read."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from service.model.errors import ShuttingDown, UpstreamTimeout, WaitTooLong
from service.model.pages import Source
from service.settings import CallerSettings
from tests.http.fake_gateway import task_of
from tests.http.site import KEY, Web, key_table
from tests.http.streams import LINES, ids, read, stream
from tests.servers import until
from tests.settings import hashed


async def test_a_failure_of_the_first_block_is_an_ordinary_problem(web: Web) -> None:
    """A failure of the first block is an ordinary problem with its status."""
    web.gateway.chunk_outcomes[0] = WaitTooLong(place=3, estimate_s=9, patience_s=1)
    answer = await web.get("/tasks", LINES)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("error", "slug"),
    [
        (UpstreamTimeout("no answer", app="shop"), "upstream-timeout"),
        (WaitTooLong(place=3, estimate_s=9, patience_s=1), "wait-too-long"),
        (ShuttingDown(), "shutting-down"),
        (RuntimeError("secret"), "failed"),
    ],
)
async def test_a_later_failure_is_in_the_last_line(web: Web, error: Exception, slug: str) -> None:
    """A later failure is in the last line, with a link to continue; following it brings the rest, once each."""
    web.gateway.chunk_outcomes[100] = error
    tasks, end = await stream(web, "q=a%26b&sort=created_at")
    assert (end["complete"], end["count"], end["total"]) == (False, 100, 250)
    assert end["problem"]["type"] == f"/problems/{slug}"
    assert "secret" not in json.dumps(end)
    assert end["next"] == "/tasks?q=a%26b&sort=created_at&offset=100"
    assert web.observed[0].labels.outcome == slug
    web.gateway.chunk_outcomes.clear()
    rest, end = read((await web.get(end["next"], LINES)).content)
    assert ids(tasks + rest) == list(range(250))
    assert end["complete"]
    assert web.gateway.requests[-1].query == web.gateway.requests[0].query


RELOADS = [
    (CallerSettings(keys=(hashed(KEY),), apps=("shop",), weight=7.0), None),
    (CallerSettings(keys=(hashed(KEY),), apps=("news",)), "unknown-app"),
    (CallerSettings(keys=(hashed(KEY),), apps=("news",), operator=True), "not-allowed"),
    (CallerSettings(keys=(hashed("another"),), apps=("shop",)), "unauthenticated"),
]


@pytest.mark.parametrize(("policy", "slug"), RELOADS)
async def test_a_reload_that_removes_the_right_ends_the_stream(
    web: Web, policy: CallerSettings, slug: str | None
) -> None:
    """A reload that removes a caller or an app ends its running stream at once, even while it waits for a block.

    The last line says why. A caller that keeps both continues, under the current policy.
    """
    web.gateway.chunk_outcomes[100] = second = asyncio.Event()
    streaming = asyncio.create_task(web.get("/tasks", LINES))
    await until(lambda: len(web.gateway.requests) == 2)
    web.callers.replace(key_table({"single": policy}))
    second.set()
    tasks, end = read((await streaming).content)
    assert (end["complete"], len(tasks)) == ((True, 250) if slug is None else (False, 100))
    assert (end["problem"] or {}).get("type") == (slug and f"/problems/{slug}")
    assert end["next"] == (slug and "/tasks?offset=100")
    assert [ask.caller.weight for ask in web.gateway.requests] == ([1.0, 1.0, 7.0] if slug is None else [1.0, 1.0])
    assert web.observed[0].labels.outcome == (slug or "streamed")


async def test_a_stream_is_bounded(web: Web) -> None:
    """A stream covers a bounded number of tasks; the last line says so, and where to continue."""
    web.settings = replace(web.settings, stream_max_tasks=1000)
    for offset in range(0, 5000, 100):
        web.gateway.chunk_outcomes[offset] = {
            "records": tuple(msgspec.json.encode(task_of(offset + number)) for number in range(100)),
            "total": 10**15,
            "following": offset + 100,
        }
    tasks, end = await stream(web)
    assert (end["complete"], len(tasks), end["next"]) == (False, 1000, "/tasks?offset=1000")
    assert (end["problem"]["type"], end["problem"]["bound"]) == ("/problems/stream-too-long", 1000)
    tasks, end = await stream(web, "offset=1000")
    assert (end["count"], end["next"]) == (1000, "/tasks?offset=2000")


async def test_an_empty_block_before_the_total_ends_the_stream(web: Web) -> None:
    """An empty block before the end of the list ends the stream: another call would return nothing either."""
    web.gateway.chunk_outcomes[100] = {
        "records": (),
        "total": 10**15,
        "following": 200,
        "is_empty": True,
        "missing": 100,
    }
    tasks, end = await stream(web)
    assert (end["complete"], len(tasks), end["missing"]) == (False, 100, 100)
    assert end["problem"]["type"] == "/problems/upstream-broken"
    assert len(web.gateway.requests) == 2


CHANGES: list[tuple[int, dict[str, Any]]] = [
    (100, {"total": 251}),
    (100, {"records": tuple(msgspec.json.encode(task_of(number)) for number in range(99, 199))}),
    (200, {"records": tuple(msgspec.json.encode(task_of(number)) for number in range(50, 100))}),
    (100, {"is_short": True, "records": ()}),
]


@pytest.mark.parametrize(("offset", "chunk"), CHANGES)
async def test_a_change_of_the_list_is_reported(web: Web, offset: int, chunk: dict[str, Any]) -> None:
    """A different total, a repeated task or a short block is reported in the last line."""
    web.gateway.chunk_outcomes[offset] = chunk
    _, end = await stream(web)
    assert (end["complete"], end["changed"]) == (True, True)


async def test_a_stream_ends_at_the_newest_total(web: Web) -> None:
    """The stream ends at the newest total, whether that is sooner or later than the first one said."""
    web.gateway.chunk_outcomes[100] = {"total": 150, "following": None}
    assert (await stream(web))[1]["total"] == 150
    web.gateway.chunk_outcomes = {200: {"total": 350, "following": 300}, 300: {"total": 350, "following": None}}
    _, end = await stream(web)
    assert (end["total"], end["complete"], end["changed"]) == (350, True, True)


async def test_the_last_line_has_age_and_staleness(web: Web) -> None:
    """The last line says when the oldest block was fetched, and that a stale one was among them."""
    web.gateway.chunk_outcomes[100] = {"source": Source.STALE, "fetched_at_ms": 1_749_999_000_000}
    _, end = await stream(web)
    assert (end["stale"], end["fetched_at"], end["changed"]) == (True, "2025-06-15T14:50:00Z", False)
