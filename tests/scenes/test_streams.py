"""Whole lists as streams on whole processes: beside paging callers, through faults, for all kinds of readers."""

import asyncio
import json
import socket
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from service.sandbox.faults import HttpStatus, Latency
from tests.control_client import NO_TLS
from tests.scenes.fleet import APP, Fleet, Got, fleet, key_of, path
from tests.servers import Server

pytestmark = [pytest.mark.scene, pytest.mark.asyncio(loop_scope="module")]

TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
RANGE = {"since": f"{TODAY - timedelta(days=90):%Y-%m-%d}", "until": f"{TODAY + timedelta(days=90):%Y-%m-%d}"}
QUICK = 500
"""Calls in a second where the limit is not the subject."""


class Reading:
    """A stream that is being read: its tasks so far, and how it ended. Lines end in a line feed and nothing else."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.tasks: list[dict[str, Any]] = []
        self.end: dict[str, Any] | None = None
        self._rest = b""
        self._parts = answer.aiter_bytes()

    @property
    def ids(self) -> list[int]:
        """The received tasks, by id."""
        return [task["id"] for task in self.tasks]

    async def on(self, count: float = float("inf")) -> "Reading":
        """Read until this many tasks have been received, or to the end."""
        while len(self.tasks) < count and (part := await anext(self._parts, None)) is not None:
            *lines, self._rest = (self._rest + part).split(b"\n")
            for line in lines:
                record = json.loads(line)
                if "end" in record:
                    self.end = record["end"]
                else:
                    self.tasks.append(record)
        return self


@asynccontextmanager
async def streaming(
    gateways: Fleet,
    *,
    caller: str = "c0",
    target: str | None = None,
    fields: Mapping[str, str] | None = None,
    **query: object,
) -> AsyncIterator[Reading]:
    """Begin a stream from the first replica, with these header fields besides; leaving hangs up."""
    headers = {
        "Authorization": f"Bearer {key_of(caller)}",
        "Accept": "application/x-ndjson",
        "Prefer": "wait=30",
        "Cache-Control": "no-cache",
        **(fields or {}),
    }
    base_url = f"http://127.0.0.1:{gateways.replicas[0].port}"
    async with (
        httpx.AsyncClient(base_url=base_url, timeout=30, verify=NO_TLS) as client,
        client.stream("GET", target or path(**RANGE, **query), headers=headers) as answer,
    ):
        assert answer.status_code == 200
        yield Reading(answer)


async def whole(gateways: Fleet, **query: object) -> Reading:
    """A stream, read to its end."""
    async with streaming(gateways, **query) as reading:
        return await reading.on()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one() -> AsyncIterator[Fleet]:
    """A gateway that may call often, and an upstream of 2,000 tasks that takes 30 ms to answer."""
    with Server() as valkey:
        quick = {"budget": {"calls": QUICK}}
        async with fleet(valkey, replicas=1, tasks=2000, sandbox_calls=QUICK, **quick) as gateways:
            await gateways.upstream.add_fault(Latency(back_ms=30))
            yield gateways


async def test_a_stream_is_the_whole_list(one: Fleet) -> None:
    """A stream has all 2,000 tasks, once each, in the order of the pages; from an offset it has the rest."""
    reading = await whole(one)
    assert reading.end is not None
    assert reading.end | {"fetched_at": ""} == {
        "complete": True,
        "count": 2000,
        "total": 2000,
        "changed": False,
        "missing": 0,
        "fetched_at": "",
        "stale": False,
        "problem": None,
        "next": None,
    }
    page = await one.page(0, **RANGE, offset=1180, limit=60)
    assert [task["id"] for task in page.json["tasks"]] == reading.ids[1180:1240]
    rest = await whole(one, offset=1337)
    assert rest.ids == reading.ids[1337:]
    pending = await whole(one, status="pending", type="tag")
    wanted = [task["id"] for task in reading.tasks if task["status"] == "pending" and task["type"] == "tag"]
    assert pending.ids == wanted
    assert len(wanted) > 50


async def test_fresh_blocks_cost_no_call(one: Fleet) -> None:
    """A block that a page fetched a moment ago is not fetched again for a stream that accepts it."""
    await whole(one, q="sale")
    before = await one.calls()
    headers = {"Accept": "application/x-ndjson"}
    again = await one.page(0, headers=headers, **RANGE, q="sale")
    assert b'{"end":{"complete":true' in again.body
    assert await one.calls() == before


async def test_a_failure_in_the_middle_ends_the_stream_with_a_link(one: Fleet) -> None:
    """The tasks so far stay, the last line reports the problem, and its link leads to the rest, each task once."""
    reference = await whole(one)
    try:
        async with streaming(one) as reading:
            await reading.on(300)
            await one.upstream.add_fault(HttpStatus(status=502))
            await reading.on()
    finally:
        await one.upstream.clear_faults()
        await one.upstream.add_fault(Latency(back_ms=30))
    end = reading.end
    assert end is not None
    assert not end["complete"]
    assert end["problem"]["type"] == "/problems/upstream-http-status"
    assert 300 <= end["count"] == len(reading.tasks) < 2000
    async with streaming(one, target=end["next"]) as rest:
        await rest.on()
    assert rest.end is not None
    assert rest.end["complete"]
    assert reading.ids + rest.ids == reference.ids


async def test_a_hang_up_stops_fetching(one: Fleet) -> None:
    """After a hang-up at the third of 200 blocks, no more are fetched than until the gateway notices."""
    await one.upstream.resize_tasks(APP.sdkappid, 20_000)
    try:
        began = await one.calls()
        async with streaming(one) as reading:
            await reading.on(300)
        assert await calls_at_rest(one) - began < 100
    finally:
        await one.upstream.resize_tasks(APP.sdkappid, 2000)


async def calls_at_rest(gateways: Fleet) -> int:
    """Wait until no call has been made for a second; return the number of calls."""
    calls = -1
    async with asyncio.timeout(60):
        while calls != (calls := await gateways.calls()):
            await asyncio.sleep(1)
    return calls


async def test_a_change_during_a_stream_is_reported_in_the_last_line(one: Fleet) -> None:
    """Tasks added while the list is streamed are reported in the last line."""
    try:
        async with streaming(one) as reading:
            await reading.on(300)
            await one.upstream.resize_tasks(APP.sdkappid, 2100)
            await reading.on()
    finally:
        await one.upstream.resize_tasks(APP.sdkappid, 2000)
    assert reading.end is not None
    assert (reading.end["complete"], reading.end["changed"], reading.end["total"]) == (True, True, 2100)


def days(first: int, last: int) -> dict[str, str]:
    """The range of some days, counted from today."""
    return {"since": f"{TODAY + timedelta(days=first):%Y-%m-%d}", "until": f"{TODAY + timedelta(days=last):%Y-%m-%d}"}


async def test_a_long_range_is_streamed_in_shared_parts(own_valkey: Server) -> None:
    """If 20 days are accepted, a stream of 150 days equals the streams of its weeks; overlapping ones share blocks.
    So does a range that moves with the clock; pages and watches of such a range are refused.
    """
    settings = {
        "budget": {"calls": QUICK},
        "cache": {"fresh_s": 300.0},
        "query": {"since": "-P7D", "until": "P7D", "range_max_days": 20},
    }
    async with fleet(own_valkey, replicas=1, sandbox_calls=QUICK, range_max_days=20, **settings) as gateways:
        for sort in ("scheduled_at", "-scheduled_at", "created_at", "-created_at"):
            weeks = [days(first, first + 6) for first in range(-75, 75, 7)]
            if sort.startswith("-"):
                weeks.reverse()
            expected = [id_ for week in weeks for id_ in (await _stream(gateways, **week, sort=sort)).ids]
            reading = await _stream(gateways, **days(-75, 78), sort=sort)
            assert reading.ids == expected
            assert len(set(expected)) == len(expected) > 500
            assert reading.end is not None
            assert reading.end["total"] == len(expected)
            assert (reading.end["complete"], reading.end["changed"]) == (True, False)
            rest = await _stream(gateways, **days(-75, 78), sort=sort, offset=321, status="pending")
            wanted = [task["id"] for task in reading.tasks[321:] if task["status"] == "pending"]
            assert rest.ids == wanted
        before = await gateways.calls()
        shorter = await _stream(gateways, **days(-50, 78), sort="-created_at", stored=True)
        assert shorter.ids == reading.ids[: len(shorter.ids)]
        assert 0 < await gateways.calls() - before <= 5 < len(shorter.ids) / 100
        moving = await _stream(gateways, since="-P75D", until="P75D", sort="scheduled_at")
        assert moving.end is not None
        assert (moving.end["complete"], moving.end["changed"], moving.end["problem"]) == (True, False, None)
        refused = await gateways.page(0, **days(-75, 78))
        assert refused.status == 400
        assert "application/x-ndjson" in refused.json["errors"][0]["detail"]


async def _stream(gateways: Fleet, *, stored: bool = False, **query: object) -> Reading:
    """A stream, read to its end; `stored` accepts stored blocks."""
    target = path(**query)
    async with streaming(gateways, target=target, fields={"Cache-Control": ""} if stored else {}) as reading:
        return await reading.on()


async def test_a_reader_that_stops_reading_holds_no_turn(own_valkey: Server) -> None:
    """It holds neither a turn nor a call: nothing more is fetched, and others are served at once; when it resumes,
    it gets the rest."""
    quick = {"budget": {"calls": QUICK}}
    async with fleet(own_valkey, replicas=1, tasks=20_000, sandbox_calls=QUICK, **quick) as gateways:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", gateways.replicas[0].port))
            lines = f"GET {path(**RANGE)} HTTP/1.1\r\nHost: t\r\nAccept: application/x-ndjson\r\nConnection: close"
            client.sendall(f"{lines}\r\nAuthorization: Bearer {key_of('c0')}\r\n\r\n".encode())
            while not await gateways.calls():
                await asyncio.sleep(0.05)
            calls = await calls_at_rest(gateways)
            assert calls < 200
            others = await asyncio.gather(*(gateways.page(0, caller=f"c{n}", q=f"other {n}") for n in range(1, 11)))
            assert {each.status for each in others} == {200}, [each.body for each in others if each.status != 200]
            assert max(each.waited_s for each in others) < 1
            assert await gateways.calls() == calls + 10
            client.setblocking(False)
            tail, loop = b"", asyncio.get_running_loop()
            async with asyncio.timeout(60):
                while part := await loop.sock_recv(client, 1 << 20):
                    tail = (tail + part)[-500:]
            assert b'"count":20000,"total":20000' in tail


async def test_an_export_does_not_starve_pages(own_valkey: Server) -> None:
    """Ten callers that page beside an export wait for at most the ten others, and it gets no more turns than they."""
    async with fleet(own_valkey, replicas=1, tasks=1500) as gateways:
        await gateways.upstream.add_fault(Latency(back_ms=50))
        got: dict[str, list[Got]] = {f"c{number}": [] for number in range(1, 11)}

        async def pages(caller: str) -> None:
            since = f"{TODAY - timedelta(days=90 + int(caller[1:])):%Y-%m-%d}"
            for offset in (0, 100, 200):
                answer = await gateways.page(0, caller=caller, since=since, until=RANGE["until"], offset=offset)
                assert answer.status == 200
                got[caller].append(answer)

        async with streaming(gateways, caller="c0") as export:
            await export.on(500)
            began_s = time.monotonic()
            paging = asyncio.gather(*(pages(caller) for caller in got))
            reading = asyncio.create_task(export.on())
            await paging
            took_s = time.monotonic() - began_s
            meanwhile = (len(export.tasks) - 500) // 100
            await reading
        assert export.end is not None
        assert export.end["complete"]
        waits = sorted(each.waited_s for answers in got.values() for each in answers)
        calls = meanwhile + sum(each.upstream_s > 0 for answers in got.values() for each in answers)
        figures = f"waits {waits}, {meanwhile} blocks of {calls} calls in {took_s:.1f} s"
        print(f"median {statistics.median(waits):.2f} s, most {waits[-1]:.2f} s; {figures}")
        assert waits[-1] < 11 * 1.1 / 5 * 1.6, figures  # or the rest of the export is before them, too
        assert meanwhile <= calls / 11 + 2, figures
        assert await gateways.worst_second() <= 5


@pytest.mark.long
async def test_a_hundred_thousand_tasks_arrive_beside_ten_callers(own_valkey: Server) -> None:
    """All tasks arrive, once each, while ten callers page beside it; no page waits long, and the memory stays flat."""
    quick = {
        "budget": {"calls": 100},
        "cache": {"memory_bytes": 4_000_000, "answers_bytes": 1_000_000},
    }
    async with fleet(own_valkey, replicas=1, tasks=100_000, sandbox_calls=100, **quick) as gateways:
        process = gateways.replicas[0].process
        assert process is not None
        waits: list[float] = []
        sizes: list[float] = []
        over = asyncio.Event()

        async def pages(caller: str) -> None:
            number = 0
            while not over.is_set():
                number += 1
                answer = await gateways.page(0, caller=caller, **RANGE, sort="created_at", offset=number * 100)
                assert answer.status == 200
                waits.append(answer.waited_s)
                await asyncio.sleep(0.5)

        paging = asyncio.gather(*(pages(f"c{number}") for number in range(1, 11)))
        async with streaming(gateways) as reading:
            known: set[int] = set()
            while reading.end is None:
                await reading.on(5000)
                known.update(reading.ids)
                reading.tasks.clear()
                sizes.append(_rss_mib(process.pid))
        over.set()
        await paging
        assert (reading.end["count"], reading.end["complete"], len(known)) == (100_000, True, 100_000)
        waits.sort()
        figures = f"waits: median {statistics.median(waits):.2f} s, most {waits[-1]:.2f} s of {len(waits)}; MiB {sizes}"
        print(figures)
        assert waits[-1] < 1, figures
        assert max(sizes) - sizes[2] < 8, figures
        assert await gateways.worst_second() <= 100


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024
