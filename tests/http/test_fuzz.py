"""Arbitrary requests get a page, a 304 or a problem that names a fault: never a 500."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.model.errors import BadRequest, UnknownApp
from service.model.queries import Slice
from service.web.headers.link import links
from service.web.parameters import TasksReader
from service.web.response_cache import ResponseCache
from service.web.settings import default_web_settings
from tests.http.fake_gateway import NOW_S
from tests.http.site import KEY, Web, key_callers

FEW = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NAMES = st.sampled_from(["app", "since", "until", "sort", "q", "offset", "limit", "Limit", "x", ""])
PLAUSIBLE = st.sampled_from(
    [
        *("shop", "news", "scheduled_at", "-created_at", "%00", "%FF", "%", "+", "a%20b", "NaN"),
        *("-P7D", "P30D", "PT0S", "P999999W", "2025-05-01", "2025-02-30", "2025-05-01T24:00:00Z"),
        *("9999-12-31T23:59:60Z", "1970-01-01T00:00:00%2B23:59", "0", "1", "100", "101", "-1", "2147483547", "1e3"),
    ]
)
VALUES = st.one_of(
    PLAUSIBLE.map(str.encode), st.binary(max_size=40).map(quote_from_bytes).map(str.encode), st.binary(max_size=40)
)
PAIRS = st.lists(st.tuples(NAMES.map(str.encode), VALUES), max_size=8)
FIELD_NAMES = st.sampled_from(
    [b"cache-control", b"prefer", b"if-none-match", b"pragma", b"x-request-id", b"authorization", b"accept", b"host"]
)
PIECES = st.sampled_from(
    [
        *("max-age", "max-stale", "min-fresh", "no-cache", "only-if-cached", "stale-if-error", "wait", "=", ",", ";"),
        *('"', "\\", " ", "5", "99999999999999999999", "-1", "W/", '"a"', "*", "@"),
    ]
)
FIELD_VALUES = st.one_of(
    st.lists(PIECES, max_size=12).map("".join).map(str.encode),
    st.binary(max_size=60).map(lambda value: bytes(byte for byte in value if byte >= 32 or byte == 9)),
)
FIELDS = st.lists(st.tuples(FIELD_NAMES, FIELD_VALUES), max_size=5)
KNOWN = (b"authorization", b"Bearer " + KEY.encode())


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def fuzzed() -> Web:
    """One application for all examples."""
    return Web()


@pytest.fixture(scope="module")
def hot(fuzzed: Web) -> ResponseCache:
    """The same, behind a response cache whose answers stay fresh."""
    return ResponseCache(
        fuzzed.app,
        authenticate_cached=fuzzed.callers.authenticate_cached,
        observers=(),
        clock=lambda: NOW_S,
        max_bytes=16 * 1024 * 1024,
    )


async def ask(app: Any, path: str, query: bytes, fields: list[tuple[bytes, bytes]]) -> tuple[int, bytes]:
    """Return status and body of a GET, bypassing any client that would repair the request."""
    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": fields,
        "root_path": "",
    }
    await app(scope, receive, send)
    status, body = sent[0]["status"], sent[1]["body"]
    assert isinstance(status, int)
    assert isinstance(body, bytes)
    return status, body


@FEW
@given(pairs=PAIRS, fields=FIELDS)
def test_random_parameters_and_fields_never_cause_a_500(
    fuzzed: Web, runner: asyncio.Runner, pairs: list[tuple[bytes, bytes]], fields: list[tuple[bytes, bytes]]
) -> None:
    """No parameters and no fields cause a 500."""
    query = b"&".join(b"=".join(pair) for pair in pairs)
    status, _ = runner.run(ask(fuzzed.app, "/tasks", query, [KNOWN, *fields]))
    assert status in {200, 304, 400, 401, 404, 406}


@FEW
@given(fields=FIELDS, known=st.booleans())
def test_random_fields_on_the_hot_path_never_cause_a_500(
    hot: ResponseCache, runner: asyncio.Runner, fields: list[tuple[bytes, bytes]], known: bool
) -> None:
    """Cached answers are as safe as new ones: requested three times, with a key or none, never a 500."""
    sent = [*([KNOWN] if known else []), *fields]
    first, second, third = (runner.run(ask(hot, "/tasks", b"", sent))[0] for _ in range(3))
    assert first == second == third
    assert first in {200, 304, 400, 401, 406}


@FEW
@given(query=st.binary(max_size=200), path=st.text(max_size=40), fields=FIELDS)
def test_random_requests_never_cause_a_500(
    fuzzed: Web, runner: asyncio.Runner, query: bytes, path: str, fields: list[tuple[bytes, bytes]]
) -> None:
    """No path, query string or fields cause a 500."""
    status, _ = runner.run(ask(fuzzed.app, "/" + path.encode("utf-8", "ignore").decode(), query, fields))
    assert status < 500


@FEW
@given(pairs=PAIRS, total=st.integers(0, 10**6))
def test_links_keep_the_query(pairs: list[tuple[bytes, bytes]], total: int) -> None:
    """Any valid query can be linked to, and parses to the same query again."""
    reader, caller = TasksReader(default_web_settings()), key_callers().identify(f"Bearer {KEY}".encode())
    query = b"&".join(b"=".join(pair) for pair in pairs)
    try:
        asked = reader.read(query, caller=caller, now_s=NOW_S)
    except (BadRequest, UnknownApp):
        return
    field = links("/tasks", asked.link_query, asked.slice, total=total).decode("ascii")
    for link in field.split(", </"):
        target = link.partition("?")[2].partition(">")[0]
        again = reader.read(target.encode(), caller=caller, now_s=NOW_S)
        assert again.query == asked.query
        assert again.slice.limit == asked.slice.limit
        assert again.slice == Slice(offset=again.slice.offset, limit=asked.slice.limit)


@pytest.mark.parametrize("name", [b"cache-control", b"prefer", b"if-none-match", b"authorization", b"accept"])
@pytest.mark.parametrize("piece", [b"a", b'"', b'"\\', b" ", b",", b"a=", b'"a",', b'a="b";', b"W/", b"Bearer "])
def test_long_fields_are_read_in_linear_time(fuzzed: Web, runner: asyncio.Runner, name: bytes, piece: bytes) -> None:
    """Sixteen kilobytes of anything in a field take milliseconds, not seconds."""
    value = (piece * 16_000)[:15_000] + b'"'
    fields = [KNOWN, (name, value)] if name != b"authorization" else [(name, value)]
    began_s = time.process_time()
    status, _ = runner.run(ask(fuzzed.app, "/tasks", b"", fields))
    assert time.process_time() - began_s < 0.5
    assert status in {200, 401}
