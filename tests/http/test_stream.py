"""`GET /tasks` as a stream, with a fake gateway; some on a real socket."""

import asyncio
import json
import socket
from contextlib import nullcontext
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from service.model.errors import ShuttingDown, UpstreamTimeout, WaitTooLong
from service.model.long_lists import ListPosition
from service.model.pages import Source
from service.model.queries import Slice
from service.model.streams import Only
from service.observe.request import RequestContext
from service.settings import CallerSettings
from service.web.identify import Access
from service.web.settings import default_web_settings
from service.web.stream import TaskStream
from tests.http.fake_gateway import task_of
from tests.http.site import AUTH, KEY, Web, hashed, key_table, raw
from tests.servers import until

LINES = {"Accept": "application/x-ndjson"}


def read(body: bytes) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the tasks and how the stream ended."""
    assert body.endswith(b"\n")
    *tasks, last = [json.loads(line) for line in body[:-1].split(b"\n")]
    assert list(last) == ["end"]
    assert all("id" in task for task in tasks)
    end: dict[str, Any] = last["end"]
    return tasks, end


def ids(tasks: list[dict[str, Any]]) -> list[int]:
    """Return their places in the list."""
    return [task["id"] - 1000 for task in tasks]


async def stream(web: Web, query: str = "") -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Open a stream, which must begin normally."""
    answer = await web.get(f"/tasks?{query}", LINES)
    assert answer.status_code == 200, answer.text
    return read(answer.content)


async def test_a_whole_list(web: Web) -> None:
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


async def test_an_empty_list(web: Web) -> None:
    """A list without tasks is its last line."""
    web.gateway.listed = ()
    tasks, end = await stream(web)
    assert (tasks, end["complete"], end["count"], end["total"]) == ([], True, 0, 0)


@pytest.mark.parametrize("offset", [1, 99, 100, 101, 249, 250, 400])
async def test_from_an_offset(web: Web, offset: int) -> None:
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
async def test_filters(web: Web, query: str, wanted: Any) -> None:
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
async def test_what_belongs_to_the_other_form(web: Web, query: str, headers: dict[str, str], named: str) -> None:
    """A limit for a stream, and unknown or repeated values, are rejected by name before the gateway is called."""
    answer = await web.get(f"/tasks?{query}", headers)
    assert answer.status_code == 400
    assert [error["parameter"] for error in answer.json()["errors"]] == [named]
    assert web.gateway.requests == []


async def test_no_acceptable_form(web: Web) -> None:
    """A client that accepts neither form gets a problem that names both; an unauthenticated one does not see it."""
    answer = await web.get("/tasks", {"Accept": "text/csv"})
    assert (answer.status_code, answer.json()["type"]) == (406, "/problems/not-acceptable")
    assert web.gateway.requests == []
    assert (await web.client.get("/tasks", headers={"Accept": "text/csv"})).status_code == 401


async def test_a_problem_before_the_first_line(web: Web) -> None:
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
async def test_a_problem_on_the_way(web: Web, error: Exception, slug: str) -> None:
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
async def test_a_reload_on_the_way(web: Web, policy: CallerSettings, slug: str | None) -> None:
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


async def test_a_list_without_end(web: Web) -> None:
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


async def test_a_list_that_ends_before_its_total(web: Web) -> None:
    """A block without a single task, where more are promised, ends the stream: no call would bring more."""
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


@pytest.mark.parametrize(("offset", "told"), CHANGES)
async def test_a_list_that_changes(web: Web, offset: int, told: dict[str, Any]) -> None:
    """A different total, a repeated task or a short block is reported in the last line."""
    web.gateway.chunk_outcomes[offset] = told
    _, end = await stream(web)
    assert (end["complete"], end["changed"]) == (True, True)


async def test_a_list_that_shrinks_and_grows(web: Web) -> None:
    """The stream ends at the newest total, whether that is sooner or later than the first one said."""
    web.gateway.chunk_outcomes[100] = {"total": 150, "following": None}
    assert (await stream(web))[1]["total"] == 150
    web.gateway.chunk_outcomes = {200: {"total": 350, "following": 300}, 300: {"total": 350, "following": None}}
    _, end = await stream(web)
    assert (end["total"], end["complete"], end["changed"]) == (350, True, True)


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


async def test_a_long_range_from_an_offset() -> None:
    """Parts before the offset are skipped for the price of one block each."""
    web = long_web()
    tasks, end = await stream(web, f"{LONG}&offset=620")
    assert [ask.slice.offset for ask in web.gateway.requests] == [620, 370, 120, 200]
    assert ids(tasks) == list(range(120, 250))
    assert (end["complete"], end["total"]) == (True, 750)


async def test_a_problem_in_a_later_part() -> None:
    """The last line leads to the rest of the whole list, and its total is that of the parts so far."""
    web = long_web(stream_max_tasks=600)
    tasks, end = await stream(web, LONG)
    assert (end["complete"], end["count"], end["total"]) == (False, 600, 750)
    assert (end["problem"]["type"], end["next"]) == ("/problems/stream-too-long", f"/tasks?{LONG}&offset=600")
    rest, end = read((await web.get(end["next"], LINES)).content)
    assert ids(tasks + rest) == [*range(250), *range(250), *range(250)]


async def test_an_empty_part() -> None:
    """A part without a task is no early end."""
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


async def test_the_longest_stream() -> None:
    """A stream reads at most about `stream_max_parts` parts."""
    web = long_web(stream_max_parts=3)
    assert (await web.get("/tasks?since=-P57D&until=now", LINES)).status_code == 200
    answer = await web.get("/tasks?since=-P58D&until=now", LINES)
    assert answer.json()["errors"] == [
        {"parameter": "since", "detail": "is more than 57 days before until, the longest range of a stream"}
    ]


async def test_age_and_staleness(web: Web) -> None:
    """The last line says when the oldest block was fetched, and that a stale one was among them."""
    web.gateway.chunk_outcomes[100] = {"source": Source.STALE, "fetched_at_ms": 1_749_999_000_000}
    _, end = await stream(web)
    assert (end["stale"], end["fetched_at"], end["changed"]) == (True, "2025-06-15T14:50:00Z", False)


async def test_line_feeds_in_the_content(web: Web) -> None:
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


async def test_head(web: Web) -> None:
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


def request(*, close: bool = True) -> bytes:
    """A request for a stream."""
    connection = b"close" if close else b"keep-alive"
    return (
        b"GET /tasks HTTP/1.1\r\nHost: gateway\r\nAccept: application/x-ndjson\r\nConnection: "
        + connection
        + b"\r\nAuthorization: Bearer "
        + KEY.encode()
        + b"\r\n\r\n"
    )


async def test_the_first_block_comes_first(web: Web) -> None:
    """The first tasks arrive while the second block is still awaited, on one connection and the next request."""
    web.gateway.chunk_outcomes[100] = go = asyncio.Event()
    async with web.on_a_socket() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(request(close=False))
            async with asyncio.timeout(5):
                assert b'"id":1099,' in await reader.readuntil(b'"id":1099,')
                go.set()
                assert b'"complete":true' in await reader.readuntil(b"0\r\n\r\n")
            go.clear()
        writer.close()


async def test_a_reader_that_hangs_up(web: Web) -> None:
    """A reader that hangs up in the middle is no longer waited for, and no further block is requested."""
    web.gateway.chunk_outcomes[100] = asyncio.Event()
    async with web.on_a_socket() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request())
        async with asyncio.timeout(5):
            await reader.readuntil(b'"id":1099,')
        writer.close()
        await until(lambda: web.gateway.cancelled == 1)
        await until(lambda: len(web.observed) == 1)
        assert (web.observed[0].labels.status, web.observed[0].labels.outcome) == (200, "hung-up")
        assert len(web.gateway.requests) == 2


async def test_a_reader_that_stops_reading(web: Web) -> None:
    """No more blocks are requested than fit into the connection; when reading resumes, the whole list arrives."""
    large = b'"' + b"x" * 4000 + b'"'
    web.gateway.listed = tuple(msgspec.json.encode(task_of(number, content=large)) for number in range(20_000))
    async with web.on_a_socket() as port:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(request())
            asked = -1
            while asked != len(web.gateway.requests):  # until it stalls
                asked = len(web.gateway.requests)
                await asyncio.sleep(0.3)
            assert asked < 50
            client.setblocking(False)
            got, loop = bytearray(), asyncio.get_running_loop()
            async with asyncio.timeout(30):
                while part := await loop.sock_recv(client, 1 << 20):
                    got += part
        assert len(web.gateway.requests) == 200
        assert b'"count":20000' in got[-400:]


async def test_a_reader_that_takes_nothing_for_long(web: Web) -> None:
    """After a while the stream ends without a last line and without the end of its body."""
    web.gateway.chunk_outcomes[100] = asyncio.Event()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        return await asyncio.Event().wait()  # type: ignore[return-value]  # it never returns

    await web.get("/tasks?offset=0")
    ask = web.gateway.requests[0]
    context = RequestContext(request_id="x", fields={})
    first = await web.gateway.chunk(ask)

    access = Access(RequestContext(request_id="x", fields={}), web.callers, ask.caller, app="shop", clock=lambda: 0.0)
    reply = TaskStream(
        web.gateway,
        ask,
        first,
        start=ListPosition(parts=(ask.query,)),
        only=Only(),
        context=context,
        in_flight=nullcontext(),
        access=access,
        link=str,
        reader_max_s=0.05,
    )
    await asyncio.wait_for(reply({}, receive, send), 2)
    assert context.hung_up
    assert [message.get("more_body") for message in sent] == [None, True]


async def test_a_stream_that_is_cut_off_has_no_last_line(web: Web) -> None:
    """The bytes of a whole stream end with its last line and the end of the body."""
    async with web.on_a_socket() as port:
        answer = await raw(port, request())
    assert answer.endswith(b"\r\n0\r\n\r\n")
    assert b'{"end":{"complete":true' in answer
