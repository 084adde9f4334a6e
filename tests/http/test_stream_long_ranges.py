"""Streams of ranges that are longer than the upstream accepts."""

import pytest
from msgspec.structs import replace

from service.web.settings import default_web_settings
from tests.http.site import Web
from tests.http.streams import LINES, ids, read, stream

LONG = "since=2025-01-01&until=2025-02-12&sort=scheduled_at"


def long_web(**changed: int) -> Web:
    """A gateway in front of an upstream that accepts ranges of up to 20 days."""
    return Web(settings=replace(default_web_settings(), range_max_days=20, **changed))


async def test_a_long_range_is_read_in_parts() -> None:
    """Each part is read to its end before the next; the totals add up, which only the last line can say."""
    web = long_web()
    answer = await web.get(f"/tasks?{LONG}", LINES)
    tasks, end = read(answer.content)
    asked = [(str(ask.query.since)[:10], str(ask.query.until)[:10], ask.slice.offset) for ask in web.gateway.requests]
    days = [("2025-01-01", "2025-01-13"), ("2025-01-14", "2025-02-01"), ("2025-02-02", "2025-02-12")]
    assert [day for *day, offset in asked if offset == 0] == [list(each) for each in days]
    assert asked == [(*each, offset) for each in days for offset in (0, 100, 200)]
    assert ids(tasks) == [*range(250)] * 3
    assert (end["complete"], end["count"], end["total"]) == (True, 750, 750)
    assert "x-total-count" not in answer.headers


async def test_parts_before_the_offset_cost_one_block_each() -> None:
    """Parts before the offset are skipped for the price of one block each."""
    web = long_web()
    tasks, end = await stream(web, f"{LONG}&offset=620")
    assert [ask.slice.offset for ask in web.gateway.requests] == [620, 370, 120, 200]
    assert ids(tasks) == list(range(120, 250))
    assert (end["complete"], end["total"]) == (True, 750)


async def test_a_failure_in_a_later_part_links_to_the_rest() -> None:
    """The last line leads to the rest of the whole list, and its total is that of the parts so far."""
    web = long_web(stream_max_tasks=600)
    tasks, end = await stream(web, LONG)
    assert (end["complete"], end["count"], end["total"]) == (False, 600, 750)
    assert (end["problem"]["type"], end["next"]) == ("/problems/stream-too-long", f"/tasks?{LONG}&offset=600")
    rest, end = read((await web.get(end["next"], LINES)).content)
    assert ids(tasks + rest) == [*range(250), *range(250), *range(250)]


async def test_an_empty_part_does_not_end_the_stream() -> None:
    """A part of the range without a task does not end the stream."""
    web = long_web()
    web.gateway.changes_of_chunks = {"records": (), "total": 0, "following": None, "is_empty": True}
    tasks, end = await stream(web, LONG)
    assert (tasks, end["complete"], end["total"], len(web.gateway.requests)) == ([], True, 0, 3)


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_long_ranges_are_for_streams(accept: str) -> None:
    """A page or a watch of a range longer than the upstream accepts is rejected, and its problem names the stream."""
    web = long_web()
    answer = await web.get(f"/tasks?{LONG}", {"Accept": accept})
    assert answer.status_code == 400
    [error] = answer.json()["errors"]
    assert error["parameter"] == "since"
    assert "more than 20 days" in error["detail"]
    assert "Accept: application/x-ndjson" in error["detail"]


async def test_parts_of_a_stream_are_bounded() -> None:
    """A stream reads at most about `stream_max_parts` parts."""
    web = long_web(stream_max_parts=3)
    assert (await web.get("/tasks?since=-P57D&until=now", LINES)).status_code == 200
    answer = await web.get("/tasks?since=-P58D&until=now", LINES)
    assert answer.json()["errors"] == [
        {"parameter": "since", "detail": "is more than 57 days before until, the longest range of a stream"}
    ]
