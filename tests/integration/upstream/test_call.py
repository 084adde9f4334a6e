"""One call against a real socket server: what is sent, over which connection, and what is not."""

import asyncio
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from service.model.errors import UpstreamBroken, UpstreamHTTPStatus
from tests.integration.upstream.bench import PAGE, Bench, RecordedTrace, pages
from tests.ports import free_port


def query_of(request: bytes) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.split(b" ")[1].decode()).query)


async def test_a_fetch_is_one_post_and_returns_a_listing(bench: Bench) -> None:
    """One fetch is one POST as the upstream's page describes it, and returns a listing."""
    listing = await bench.fetch()
    assert (listing.total, [task.id for task in listing.tasks]) == (1, [1])
    [request] = bench.upstream.requests
    assert request.startswith(b"POST /v4/timpush/list_sched_task?")
    assert query_of(request) == {
        "usersig": [bench.signer.current(bench.wall_s).text],
        "identifier": ["admin"],
        "sdkappid": ["88888888"],
        "random": query_of(request)["random"],
        "contenttype": ["json"],
    }
    assert 0 <= int(query_of(request)["random"][0]) < 2**32
    assert json.loads(request.split(b"\r\n\r\n", 1)[1])["Want"] == 20


async def test_a_call_sends_and_reports_its_trace(bench: Bench) -> None:
    """A call sends the fields of its trace, and reports to it the address without the query, and the status."""
    traceparent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    trace = RecordedTrace(traceparent, ("tracestate", "a=b"))
    await bench.fetch()
    await bench.fetch(trace=trace)
    assert trace.steps == [f"POST {bench.base}/v4/timpush/list_sched_task", "200"]
    first, second = bench.upstream.requests
    assert b"traceparent" not in first.lower()
    assert b"\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n" in second


async def test_consecutive_calls_share_a_connection_and_a_signature(bench: Bench) -> None:
    """Consecutive calls share a connection and a signature; each has its own random."""
    for _ in range(5):
        await bench.fetch()
    queries = [query_of(request) for request in bench.upstream.requests]
    assert bench.upstream.connections == 1
    assert len({query["random"][0] for query in queries}) == 5
    assert len({query["usersig"][0] for query in queries}) == 1


async def test_concurrent_calls_share_the_configured_connections(bench: Bench) -> None:
    """Many concurrent calls share the configured connections, and all are answered."""
    bench.use(connections=3)
    listings = await asyncio.gather(*(bench.fetch() for _ in range(30)))
    assert [listing.total for listing in listings] == [1] * 30
    assert bench.upstream.connections <= 3


async def test_proxies_of_the_environment_are_not_used(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies named in the environment are not used."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    bench.use()
    assert (await bench.fetch()).total == 1


async def test_cookies_are_not_sent_back(bench: Bench) -> None:
    """A cookie that the upstream sets is not sent back."""
    bench.upstream.scene = pages(headers="Set-Cookie: id=7; Path=/\r\n")
    await bench.fetch()
    await bench.fetch()
    assert b"cookie" not in bench.upstream.requests[1].lower()


async def test_redirects_are_not_followed(bench: Bench) -> None:
    """A redirect is an error, and the signature is sent nowhere else."""
    bench.upstream.scene = pages(b"x", status="307 Temporary Redirect", headers=f"Location: {bench.base}/x\r\n")
    with pytest.raises(UpstreamHTTPStatus):
        await bench.fetch()
    assert len(bench.upstream.requests) == 1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_retry_after_is_passed_on(bench: Bench, status: str) -> None:
    """The upstream's `Retry-After` is passed on."""
    bench.upstream.scene = pages(b"busy", status=status, headers="Retry-After: 7\r\n")
    with pytest.raises(UpstreamHTTPStatus) as caught:
        await bench.fetch()
    assert (caught.value.status, caught.value.retry_after_s) == (int(status[:3]), 7.0)


async def test_a_connection_closed_while_idle_is_not_used(bench: Bench) -> None:
    """A connection that the upstream closed while it was idle is not used: the call opens a new one."""

    async def play(connection: Any) -> None:
        await connection.request()
        await connection.answer(json.dumps(PAGE).encode())

    bench.upstream.scene = play
    await bench.fetch()
    await bench.upstream.all_closed()
    assert (await bench.fetch()).total == 1
    assert bench.upstream.connections == 2


async def test_a_connection_that_breaks_when_reused_counts_as_sent(bench: Bench) -> None:
    """A connection that breaks when reused counts as sent: the upstream may have received the call."""

    async def play(connection: Any) -> None:
        await connection.request()
        await connection.answer(json.dumps(PAGE).encode())
        await connection.request()

    bench.upstream.scene = play
    await bench.fetch()
    with pytest.raises(UpstreamBroken, match="closed without an answer") as caught:
        await bench.fetch()
    assert caught.value.sent


async def test_an_empty_content_encoding_is_none(bench: Bench) -> None:
    """Some proxies send the field without a value."""
    bench.upstream.scene = pages(headers="Content-Encoding: \r\n")
    assert (await bench.fetch()).total == 1
