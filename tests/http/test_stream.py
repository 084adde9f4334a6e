"""`GET /tasks` as a stream of lines, with a fake gateway."""

import json
from typing import Any

import msgspec
import pytest

from service.model.queries import Slice
from tests.http.fake_gateway import task_of
from tests.http.site import AUTH, Web
from tests.http.streams import LINES, ids, read, stream


async def test_a_stream_sends_the_whole_list(web: Web) -> None:
    """All tasks arrive in order, one per line, from one block after the other, and the last line says complete."""
    answer = await web.get("/tasks", LINES | {"Prefer": "wait=7"})
    tasks, end = read(answer.content)
    assert ids(tasks) == list(range(250))
    assert end == {
        "complete": True,
        "count": 250,
        "total": 250,
        "changed": False,
        "missing": 0,
        "fetched_at": "2025-06-15T15:06:36Z",
        "stale": False,
        "problem": None,
        "next": None,
    }
    assert [ask.slice for ask in web.gateway.requests] == [Slice(offset=n, limit=100) for n in (0, 100, 200)]
    assert {ask.patience_s for ask in web.gateway.requests} == {7.0}
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["vary"] == "Accept, Accept-Encoding, Authorization"
    assert answer.headers["x-total-count"] == "250"
    assert answer.headers["cache-control"] == "no-store"
    assert "content-length" not in answer.headers
    assert (web.observed[0].labels.outcome, web.observed[0].labels.status) == ("streamed", 200)


async def test_a_stream_of_an_empty_list_is_its_last_line(web: Web) -> None:
    """The stream of a list without tasks consists of its last line."""
    web.gateway.listed = ()
    tasks, end = await stream(web)
    assert (tasks, end["complete"], end["count"], end["total"]) == ([], True, 0, 0)


@pytest.mark.parametrize("offset", [1, 99, 100, 101, 249, 250, 400])
async def test_a_stream_from_an_offset_is_the_rest(web: Web, offset: int) -> None:
    """A stream from any offset is the rest of the whole; from beyond the end it is empty."""
    tasks, end = await stream(web, f"offset={offset}")
    assert ids(tasks) == list(range(offset, 250))
    assert (end["complete"], end["count"]) == (True, max(250 - offset, 0))


FILTERS = [
    ("status=pending", lambda n: n % 5 == 0),
    ("type=tag", lambda n: n % 2 == 0),
    ("type=tag&status=pending", lambda n: n % 10 == 0),
    ("type=user", lambda n: False),
    ("status=pending,dispatched&type=tag,user", lambda n: n % 2 == 0),
    ("status=pending%2Cdispatching", lambda n: n % 5 == 0),
]


@pytest.mark.parametrize(("query", "wanted"), FILTERS)
async def test_a_filtered_stream_has_only_matching_tasks(web: Web, query: str, wanted: Any) -> None:
    """Only tasks of the status and the type are sent, and the total is still the query's."""
    tasks, end = await stream(web, query)
    assert ids(tasks) == [number for number in range(250) if wanted(number)]
    assert (end["count"], end["total"], end["complete"]) == (len(tasks), 250, True)


REFUSED = [
    ("limit=5", LINES, "limit"),
    ("status=pending,", {}, "status"),
    ("status=pending,pending", {}, "status"),
    ("status=pending&status=dispatched", {}, "status"),
    ("type=all,%20tag", LINES, "type"),
    ("status=Pending", LINES, "status"),
    ("type=everyone", LINES, "type"),
    ("status=", LINES, "status"),
]


@pytest.mark.parametrize(("query", "headers", "named"), REFUSED)
async def test_parameters_of_pages_are_rejected_for_streams(
    web: Web, query: str, headers: dict[str, str], named: str
) -> None:
    """A limit for a stream, and unknown or repeated values, are rejected by name before the gateway is called."""
    answer = await web.get(f"/tasks?{query}", headers)
    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.json()["errors"]] == [named]
    assert web.gateway.requests == []


async def test_a_client_that_accepts_neither_form_gets_a_problem(web: Web) -> None:
    """A client that accepts neither form gets a problem that names both; an unauthenticated one does not see it."""
    answer = await web.get("/tasks", {"Accept": "text/csv"})
    assert (answer.status_code, answer.json()["type"]) == (406, "/problems/not-acceptable")
    assert web.gateway.requests == []
    assert (await web.client.get("/tasks", headers={"Accept": "text/csv"})).status_code == 401


async def test_content_with_line_feeds_is_sent_as_one_line(web: Web) -> None:
    """Content that the upstream wrote over several lines is one line, and means the same."""
    content = b'{ "a" :\r\n [1.50E+3,\n  "x\\ny  z", 123456789012345678901],\n"b":\t{}}'
    web.gateway.listed = (msgspec.json.encode(task_of(0, content=content)), msgspec.json.encode(task_of(1)))
    answer = await web.get("/tasks", LINES)
    assert answer.content.count(b"\n") == 3
    assert b"\r" not in answer.content
    tasks, end = read(answer.content)
    assert tasks[0]["content"] == json.loads(content)
    assert b"1.50E+3" in answer.content
    assert end["count"] == 2


async def test_head_costs_only_the_first_block(web: Web) -> None:
    """HEAD costs only the first block and has the fields of GET."""
    got = await web.get("/tasks", LINES)
    web.gateway.requests.clear()
    headed = await web.client.head("/tasks", headers=AUTH | LINES)
    assert len(web.gateway.requests) == 1
    assert headed.content == b""
    drop = {"x-request-id"}
    assert {k: v for k, v in headed.headers.items() if k not in drop} == {
        k: v for k, v in got.headers.items() if k not in drop
    }
