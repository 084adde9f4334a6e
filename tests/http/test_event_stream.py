"""`GET /tasks` as server-sent events, on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from service.model.errors import RangeTooWide, UpstreamTimeout
from service.watch import feed as feed_module
from tests.event_reader import EVENT_STREAM, Event, Mirror, events
from tests.http.fake_gateway import task_of
from tests.http.site import AUTH, Web


@pytest.fixture(autouse=True)
def _quick_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "RENEW_MIN_S", 0.01)
    monkeypatch.setattr(feed_module, "RETRY_MIN_S", 0.01)


@asynccontextmanager
async def watching(
    web: Web, query: str = "", **headers: str
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[Event]]]:
    """Watch on a real socket; the list's blocks are never fresh, so each pass re-reads them."""
    web.gateway.changes_of_chunks = {"lifetime_s": 0.0}
    async with asyncio.timeout(20), web.on_a_socket() as port, httpx.AsyncClient(timeout=20) as client:
        url = f"http://127.0.0.1:{port}/tasks?{query}"
        async with client.stream("GET", url, headers={**AUTH, **EVENT_STREAM, **headers}) as answer:
            yield answer, events(answer)


async def test_a_list_and_its_changes(web: Web) -> None:
    """The header fields, the whole list in order, `synced`, and a change as it happens."""
    web.gateway.listed = web.gateway.listed[:90]
    async with watching(web) as (answer, coming):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-accel-buffering"] == "no"
        mirror = Mirror()
        async for event in coming:
            mirror.take(event)
            if event.name == "synced":
                break
        assert list(mirror.tasks) == [1000 + number for number in range(90)]
        web.gateway.listed = (*web.gateway.listed[1:], msgspec.json.encode(task_of(250)))
        async for event in coming:
            mirror.take(event)
            if 1000 not in mirror.tasks and 1250 in mirror.tasks:
                break
        assert {"added", "removed"} <= set(mirror.names)


async def test_a_watch_counts_for_its_caller(web: Web) -> None:
    """The usage of its caller has the watch, its events, and a reset, for an id that is not known."""
    web.gateway.listed = web.gateway.listed[:3]
    async with watching(web, **{"Last-Event-ID": "unknown"}) as (_, coming):
        names = [(await anext(coming)).name for _ in range(5)]
        assert names == ["reset", "task", "task", "task", "synced"]
        assert (web.watched["single", "watches"], web.watched["single", "resets"]) == (1, 1)
        assert web.watched["single", "events"] == web.feeds.events.total() >= 5


async def test_a_filter_is_watched(web: Web) -> None:
    """`status` and `type` exclude other tasks."""
    async with watching(web, "status=pending&type=tag") as (_, coming):
        mirror = Mirror()
        async for event in coming:
            mirror.take(event)
            if event.name == "synced":
                assert event.data["total"] == 250
                break
    assert mirror.tasks
    assert {(task["status"], task["type"]) for task in mirror.tasks.values()} == {("pending", "tag")}


async def test_content_with_line_breaks_is_one_line(web: Web) -> None:
    """`content` is the upstream's own JSON, and may span several lines; an event's data may not."""
    web.gateway.listed = (msgspec.json.encode(task_of(1, content=b'{\r\n "a": "b\\nc"\n}')),)
    async with watching(web) as (_, coming):
        event = await anext(coming)
    assert event.data["content"] == {"a": "b\nc"}


@pytest.mark.parametrize(
    ("query", "error", "status", "slug"),
    [
        ("", UpstreamTimeout("late", app="shop"), 504, "upstream-timeout"),
        ("", RangeTooWide(total=3000, bound=2000), 422, "range-too-wide"),
        ("offset=20", None, 400, "bad-request"),
        ("limit=20", None, 400, "bad-request"),
        ("status=lost", None, 400, "bad-request"),
    ],
)
async def test_a_watch_that_can_not_begin_is_a_problem(
    web: Web, query: str, error: Exception | None, status: int, slug: str
) -> None:
    """An error before the first event is a problem with its status, as for pages."""
    if error is not None:
        web.gateway.chunk_outcomes[0] = error
    answer = await web.get(f"/tasks?{query}", EVENT_STREAM)
    assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}")


async def test_head_sends_fields_alone(web: Web) -> None:
    """HEAD sends the header fields and no event, as for streams."""
    answer = await web.client.head("/tasks", headers={**AUTH, **EVENT_STREAM})
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "text/event-stream", b"")
    assert web.feeds.watchers == 0


async def test_shutdown_ends_a_watch_with_its_reason(web: Web) -> None:
    """When the replica shuts down, watches end at once, and their last event says why."""
    async with watching(web) as (_, coming):
        async for event in coming:
            if event.name == "synced":
                break
        web.feeds.begin_drain()
        rest = [event async for event in coming]
    assert rest[-1].name == "end"
    assert rest[-1].data["problem"]["type"] == "/problems/shutting-down"


async def test_a_hang_up_frees_the_watcher(web: Web) -> None:
    """After the last watcher hangs up, its list is no longer read."""
    async with asyncio.timeout(20), web.on_a_socket() as port:
        async with httpx.AsyncClient() as client:
            url = f"http://127.0.0.1:{port}/tasks"
            async with client.stream("GET", url, headers={**AUTH, **EVENT_STREAM}) as answer:
                await anext(events(answer))
                assert web.feeds.watchers == 1
        while web.feeds.watchers:
            await asyncio.sleep(0.01)
    assert len(web.feeds) == 0
