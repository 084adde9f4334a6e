"""Which of an app's hosts is called."""

import asyncio
from typing import Any

import pytest

from service.model.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamHTTPStatus,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tests.integration.upstream.bench import Bench, RecordedTrace, pages, raw, refusals
from tests.ports import free_port


@pytest.mark.parametrize("broken", ["http://127.0.0.1:{closed}", f"http://{'a' * 64}.invalid"])
async def test_an_unreachable_host_is_replaced_by_its_backup(bench: Bench, broken: str) -> None:
    """If the first host can't be reached, the next one is called, once, with one slot."""
    first = broken.format(closed=free_port())
    bench.use(first, bench.base)
    trace = RecordedTrace()
    assert (await bench.fetch(trace=trace)).total == 1
    assert bench.begun == 1
    path = "/v4/timpush/list_sched_task"
    assert trace.steps == [f"POST {first}{path}", f"POST {bench.base}{path}", "200"]


async def test_failed_host_is_avoided_for_a_while(bench: Bench) -> None:
    """A host that failed comes last for half a minute, then first again."""
    port = free_port()
    bench.use(f"http://127.0.0.1:{port}", bench.base)
    await bench.fetch()
    first = await asyncio.start_server(bench.upstream.serve, "127.0.0.1", port)
    async with first:
        bench.upstream.connections = 0
        await bench.fetch()
        assert bench.upstream.connections == 0, "the backup's connection is used again"
        bench.steady_s += 30.0
        await bench.fetch()
        assert bench.upstream.connections == 1, "the first host is called again"
        await bench.client.aclose()


async def test_no_call_is_made_if_no_host_can_be_reached(bench: Bench) -> None:
    """If no host can be reached the call was not made, however often it is tried."""
    bench.use(f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}")
    for _ in range(2):
        with pytest.raises(UpstreamUnreachable, match="refused the connection") as caught:
            await bench.fetch()
        assert not caught.value.sent
    assert bench.begun == 0


@pytest.mark.parametrize(
    ("scene", "kind"),
    [
        (raw(), UpstreamBroken),
        (raw(hang=True), UpstreamTimeout),
        (pages(b"x", status="503 Service Unavailable"), UpstreamHTTPStatus),
        (refusals(60008), UpstreamRefused),
    ],
)
async def test_no_second_host_after_an_answer(bench: Bench, scene: Any, kind: type[UpstreamError]) -> None:
    """A host that answered, or may have received the call, is the only one called."""
    bench.use(bench.base, f"http://localhost:{bench.port}", read_timeout_s=0.5)
    bench.upstream.scene = scene
    with pytest.raises(kind):
        await bench.fetch()
    assert bench.begun == len(bench.upstream.requests) == 1
