"""Hostile requests: input is echoed only as data, and never causes a 500."""

import asyncio

import pytest

from service.settings import CallerSettings
from tests.http.site import AUTH, KEY, MANY_AUTH, Web, key_callers, key_table, raw
from tests.servers import until
from tests.settings import hashed

PARAMETERS = [
    *(("/tasks", name) for name in ("app", "since", "until", "sort", "q", "offset", "limit", "status", "type", "x")),
    *(("/usage", name) for name in ("app", "caller", "since", "x")),
    *(("/budget", name) for name in ("app", "x")),
    *(("/cache", name) for name in ("app", "x")),
]
INJECTED = (
    *("%00", "%0a", "%7f", "%1b[31m", "%c0%80", "%e2%80%a8"),
    *("%0d%0aX-Injected:%201", "a%0d%0a%0d%0aHTTP/1.1%20200"),
)
FIELDS = ("Authorization", "Prefer", "Cache-Control", "If-None-Match", "X-Request-Id")
ODD = (b"a\x00b", b"a\rb", b"a\nX-Injected: 1", b"a\r\n X-Injected: 1", b"\x7f", b"\xff\xfe")


@pytest.mark.parametrize(("path", "parameter"), PARAMETERS)
@pytest.mark.parametrize("value", INJECTED)
async def test_control_characters_in_parameters_are_never_echoed_raw(
    web: Web, path: str, parameter: str, value: str
) -> None:
    """Control characters of a parameter are never echoed raw, in any field or body."""
    method = "DELETE" if path == "/cache" else "GET"
    answer = await web.client.request(method, f"{path}?{parameter}={value}", headers=AUTH)
    assert answer.status_code in (200, 400, 403, 404)
    assert "x-injected" not in answer.headers
    for text in (*answer.headers.values(), answer.text):
        assert not any(ord(char) < 0x20 or ord(char) == 0x7F for char in text)


@pytest.mark.parametrize("field", FIELDS)
async def test_control_characters_in_fields_never_become_fields(web: Web, field: str) -> None:
    """A field with invalid bytes is refused or read as data; none of it becomes a field of the answer."""
    credential = b"" if field == "Authorization" else b"Authorization: Bearer " + KEY.encode() + b"\r\n"
    start = b"GET /tasks HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + credential + field.encode()
    async with web.on_a_socket() as port:
        for value in ODD:
            head = (await raw(port, start + b": " + value + b"\r\n\r\n")).partition(b"\r\n\r\n")[0]
            assert head.split(b" ")[1] in (b"200", b"400", b"401"), value
            assert b"x-injected" not in head.lower()


async def test_requests_in_flight_are_bounded_for_each_caller(web: Web) -> None:
    """Beyond waiting_max a caller's requests are refused before they reach the gateway.

    Another caller's are not, and neither are its own after the others have ended, for whatever reason.
    """
    web.gateway.go = asyncio.Event()
    waiting = [asyncio.create_task(web.get(f"/tasks?q={number}")) for number in range(5)]
    await until(lambda: web.gateway.waiting == 5)
    refused = await web.get("/tasks?q=more")
    assert (refused.status_code, refused.json()["bound"], refused.headers["retry-after"]) == (429, 5, "1")
    assert len(web.gateway.requests) == 5
    other = asyncio.create_task(web.client.get("/tasks?app=shop", headers=MANY_AUTH))
    await until(lambda: web.gateway.waiting == 6)
    web.gateway.error = RuntimeError()
    web.gateway.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting, other)} == {500}
    web.gateway.error = None
    web.gateway.go.clear()
    again = [asyncio.create_task(web.get(f"/tasks?q={number}")) for number in range(5)]
    await until(lambda: web.gateway.waiting == 5)
    web.gateway.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*again)} == {200}


async def test_a_page_in_memory_is_served_beyond_that_bound(web: Web) -> None:
    """A caller at its bound of waiting requests still gets a page from memory, which waits for nothing."""
    web.gateway.go = asyncio.Event()
    waiting = [asyncio.create_task(web.get(f"/tasks?q={number}")) for number in range(5)]
    await until(lambda: web.gateway.waiting == 5)
    web.gateway.remembers = True
    assert (await web.get("/tasks")).status_code == 200
    web.gateway.go.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_streams_in_flight_are_bounded_for_each_caller(web: Web) -> None:
    """A stream counts until its end, not only until its first block: a caller can't hold any number of them open."""
    web.gateway.chunk_outcomes[100] = asyncio.Event()
    ndjson = {"Accept": "application/x-ndjson"}
    streams = [asyncio.create_task(web.get("/tasks", headers=ndjson)) for _ in range(5)]
    await until(lambda: sum(ask.slice.offset == 100 for ask in web.gateway.requests) == 5)
    for fields in (ndjson, {}):
        async with asyncio.timeout(20):
            refused = await web.get("/tasks", headers=fields)
        assert (refused.status_code, refused.json()["bound"]) == (429, 5)
    web.gateway.chunk_outcomes[100].set()
    assert {answer.status_code for answer in await asyncio.gather(*streams)} == {200}
    assert (await web.get("/tasks", headers=ndjson)).status_code == 200


@pytest.mark.parametrize(("operator", "foreign"), [(False, 404), (True, 403)])
async def test_only_operators_can_tell_foreign_apps_from_unknown_ones(operator: bool, foreign: int) -> None:
    """A foreign app and a nonexistent one look alike, except to an operator, who gets 403 for the former."""
    caller = CallerSettings(keys=(hashed(KEY),), apps=("shop",), operator=operator)
    web = Web(callers=key_callers({"c": caller}))
    async with web.client:
        assert (await web.get("/tasks?app=news")).status_code == foreign
        assert (await web.get("/tasks?app=none")).status_code == 404
        assert web.gateway.requests == []
        assert (await web.get("/tasks?app=shop")).status_code == 200


async def test_a_removed_caller_is_refused_at_its_next_request(web: Web) -> None:
    """A caller that was removed from the table is refused at the next request."""
    assert (await web.client.get("/apps", headers=AUTH)).status_code == 200
    web.callers.replace(key_table({"other": CallerSettings(keys=(hashed("other"),), apps=("shop",))}))
    assert (await web.client.get("/apps", headers=AUTH)).status_code == 401
