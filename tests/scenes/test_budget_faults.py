"""The guarantees of the budget when something dies: whole processes, and the upstream's own arrival times."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from service.sandbox.faults import ErrorCode, Hang, HttpStatus, Latency
from tests.scenes.fleet import Fleet, Got, fleet
from tests.servers import Guarded, Server

pytestmark = pytest.mark.scene


async def _calls_beyond(gateways: Fleet, count: int, *, within_s: float) -> float:
    """Wait until more than `count` calls have arrived; return how long that took."""
    started_s = time.monotonic()
    async with asyncio.timeout(within_s):
        while await gateways.calls() <= count:
            await asyncio.sleep(0.02)
    return time.monotonic() - started_s


def _backlog(gateways: Fleet, count: int, *, name: str = "backlog") -> list["asyncio.Task[Got]"]:
    replicas = len(gateways.replicas)
    return [
        asyncio.create_task(gateways.page(n % replicas, caller=f"c{n % 10}", q=f"{name} {n}")) for n in range(count)
    ]


async def _end(tasks: list["asyncio.Task[Got]"]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_killed_replica_costs_its_leases(own_valkey: Server) -> None:
    """A killed replica holds turns and a fetch that others wait for: they get the block, and other turns continue
    at once."""
    async with fleet(own_valkey, replicas=3, upstream={"call_timeout_s": 2.0, "read_timeout_s": 1.5}) as gateways:
        await gateways.upstream.add_fault(Hang(calls=1, hold_ms=60_000))
        doomed = asyncio.create_task(gateways.page(0, caller="c1", q="wanted"))
        await _calls_beyond(gateways, 0, within_s=30)
        joined = [asyncio.create_task(gateways.page(1 + n % 2, caller=f"c{n}", q="wanted")) for n in range(10)]
        others = _backlog(gateways, 30)
        await asyncio.sleep(0.3)
        before = await gateways.calls()
        gateways.replicas[0].signal(signal.SIGKILL)
        await _calls_beyond(gateways, before + 3, within_s=30)
        pauses = [later - earlier for earlier, later in pairwise((await gateways.arrivals_ms())[before - 1 :])]
        assert max(pauses[:4]) < 1_900, "the others wait for the lease of the fetch, 2 s"
        got = await asyncio.gather(*joined)
        assert {each.status for each in got} == {200}
        assert max(each.took_s for each in got) < 15
        assert await gateways.worst_second() <= 5
        await _end([doomed, *others])


async def _flush(server: Server) -> None:
    server.run("FLUSHALL")


async def _restart_empty(server: Server) -> None:
    server.kill()
    server.restart()


async def _freeze(server: Server) -> None:
    server.freeze()
    await asyncio.sleep(3)
    server.thaw()


@pytest.mark.parametrize("fault", [_flush, pytest.param(_restart_empty, marks=pytest.mark.long), _freeze])
async def test_a_faulty_valkey_never_exceeds_the_limit(
    own_valkey: Server, fault: Callable[[Server], Awaitable[None]]
) -> None:
    """Under a backlog Valkey loses everything, or hangs for 3 s: never 6 calls in a second, and turns resume after a
    quiet window of 1.5 s."""
    async with fleet({"url": own_valkey.url}, budget={"redis_grace_s": 20.0}) as gateways:
        tasks = _backlog(gateways, 120)
        await _calls_beyond(gateways, 8, within_s=30)
        await fault(own_valkey)
        before = await gateways.calls()
        assert await _calls_beyond(gateways, before, within_s=30) < 3.0
        await _calls_beyond(gateways, before + 9, within_s=30)
        assert await gateways.worst_second() <= 5
        await _end(tasks)


async def test_a_failover_never_exceeds_the_limit() -> None:
    """Under a backlog Sentinel promotes the replica: never 6 calls in a second, and turns continue."""
    with Guarded() as servers:
        redis = {"url": servers.url, "mode": "sentinel"}
        async with fleet(redis, replicas=2, budget={"redis_grace_s": 30.0}) as gateways:
            tasks = _backlog(gateways, 120)
            await _calls_beyond(gateways, 8, within_s=30)
            first = servers.master_port()
            servers.first.kill()
            async with asyncio.timeout(30):
                while servers.master_port() == first:
                    await asyncio.sleep(0.05)
            before = await gateways.calls()
            assert await _calls_beyond(gateways, before, within_s=30) < 6.0
            await _calls_beyond(gateways, before + 9, within_s=30)
            assert await gateways.worst_second() <= 5
            await _end(tasks)


async def test_throttling_pauses_all_replicas(own_valkey: Server) -> None:
    """The upstream throttles every third call: each time all replicas pause, and all pages arrive."""
    async with fleet(own_valkey, budget={"pause_s": 0.5, "attempts": 10}) as gateways:
        await gateways.upstream.add_fault(ErrorCode(code=60007, every=3))
        got = await asyncio.gather(*_backlog(gateways, 20))
        assert {each.status for each in got} == {200}
        arrivals = await gateways.arrivals_ms()
        pauses = [later - earlier for earlier, later in pairwise(arrivals) if later - earlier > 400]
        assert len(pauses) >= (len(arrivals) // 3) - 2
        assert await gateways.worst_second() <= 5


@pytest.mark.parametrize(
    ("fault", "status"), [(HttpStatus(status=502), 502), pytest.param(Hang(), 504, marks=pytest.mark.long)]
)
async def test_a_failing_upstream_is_not_stormed(own_valkey: Server, fault: HttpStatus | Hang, status: int) -> None:
    """Each try takes a slot, and there are three per page: 10 pages make 30 calls, 5 a second, and report the fault."""
    async with fleet(
        own_valkey, upstream={"connect_timeout_s": 0.3, "read_timeout_s": 0.3, "call_timeout_s": 1.0}
    ) as gateways:
        await gateways.upstream.add_fault(fault)
        got = await asyncio.gather(*_backlog(gateways, 10))
        assert {each.status for each in got} == {status}
        assert await gateways.calls() == 30
        assert await gateways.worst_second() <= 5


async def test_stale_pages_are_served_at_once_while_the_upstream_fails(own_valkey: Server) -> None:
    """The first request detects the failure; the others are served stale at once, and background tries continue
    until the upstream is back."""
    async with fleet(own_valkey, replicas=1, cache={"fresh_s": 0.5, "stale_while_revalidate_s": 0}) as gateways:
        for n in range(8):
            assert (await gateways.page(0, q=f"old {n}")).status == 200
        await gateways.upstream.add_fault(HttpStatus(status=503))
        await asyncio.sleep(0.6)
        assert (await gateways.page(0, q="old 0")).is_stale
        got = await asyncio.gather(*(gateways.page(0, caller=f"c{n}", q=f"old {n % 8}") for n in range(40)))
        assert {each.status for each in got} == {200}
        assert all(each.is_stale for each in got), {each.outcome for each in got}
        assert max(each.waited_s + each.upstream_s for each in got) < 2
        await gateways.upstream.clear_faults()
        async with asyncio.timeout(30):
            while (await gateways.page(0, q="old 1")).is_stale:
                await asyncio.sleep(0.1)
        assert await gateways.worst_second() <= 5


async def test_a_recovered_upstream_is_used_at_once(own_valkey: Server) -> None:
    """No circuit breaker outlasts the upstream's failure."""
    async with fleet(own_valkey, replicas=1) as gateways:
        await gateways.upstream.add_fault(HttpStatus(status=503))
        assert (await gateways.page(0, q="down")).status == 502
        await gateways.upstream.clear_faults()
        back = await gateways.page(0, q="down")
        assert back.status == 200
        assert back.took_s < 5


async def test_a_replica_that_shuts_down_serves_waiting_requests(own_valkey: Server) -> None:
    """After SIGTERM, all requests waiting at the replica get their turns, though it is no longer ready; then it
    exits with 0."""
    async with fleet(own_valkey, replicas=2) as gateways:
        here = [asyncio.create_task(gateways.page(0, caller=f"c{n % 5}", q=f"here {n}")) for n in range(20)]
        await _calls_beyond(gateways, 4, within_s=30)
        gateways.replicas[0].signal(signal.SIGTERM)
        assert Counter(each.status for each in await asyncio.gather(*here)) == {200: 20}
        assert await gateways.replicas[0].ended() == 0
        assert await gateways.worst_second() <= 5


async def test_a_replica_rejects_waiting_requests_after_drain_s(own_valkey: Server) -> None:
    """After drain_s calls in flight end, requests still waiting get 503 with `Retry-After`, and turns elsewhere
    continue."""
    async with fleet(own_valkey, replicas=2, server={"drain_s": 0.5}) as gateways:
        await gateways.upstream.add_fault(Latency(back_ms=700))
        elsewhere = [asyncio.create_task(gateways.page(1, caller="c9", q=f"elsewhere {n}")) for n in range(10)]
        here = [asyncio.create_task(gateways.page(0, caller=f"c{n % 5}", q=f"here {n}")) for n in range(50)]
        await _calls_beyond(gateways, 4, within_s=30)
        started_s = time.monotonic()
        gateways.replicas[0].signal(signal.SIGTERM)
        got = await asyncio.gather(*here)
        assert await gateways.replicas[0].ended() == 0
        assert time.monotonic() - started_s < 8  # the backlog would take 12 s
        by_status = {
            status: [each for each in got if each.status == status] for status in {each.status for each in got}
        }
        assert set(by_status) == {200, 503}
        assert 1 <= len(by_status[200]) <= 25
        assert all(int(each.headers["retry-after"]) >= 1 for each in by_status[503])
        assert {each.json["type"] for each in by_status[503]} == {"/problems/shutting-down"}
        assert {each.status for each in await asyncio.gather(*elsewhere)} == {200}
        assert await gateways.worst_second() <= 5


@pytest.mark.parametrize("gone_s", [0.6, pytest.param(60, marks=pytest.mark.long)])
async def test_without_valkey_no_call_is_made(own_valkey: Server, gone_s: float) -> None:
    """With `closed`, blocks in memory are served stale and other requests get 503; the replica stays ready; calls
    resume after a quiet window."""
    async with fleet(own_valkey, replicas=2, cache={"fresh_s": 0.5, "stale_while_revalidate_s": 0}) as gateways:
        assert (await gateways.page(0, q="known")).status == 200
        before = await gateways.calls()
        own_valkey.kill()
        await asyncio.sleep(gone_s)
        known = await gateways.page(0, q="known")
        assert (known.status, known.is_stale) == (200, True), known.outcome
        unknown = await gateways.page(0, q="unknown")
        assert unknown.status == 503
        assert unknown.json["type"].endswith("/problems/store-unavailable")
        assert int(unknown.headers["retry-after"]) >= 1
        ready = await gateways.page(1, q="unknown", wait=1)
        assert ready.status == 503
        await asyncio.gather(*(replica.ready() for replica in gateways.replicas))
        assert await gateways.calls() == before
        own_valkey.restart()
        started_s = time.monotonic()
        async with asyncio.timeout(30):
            while (await gateways.page(0, q="unknown")).status != 200:
                await asyncio.sleep(0.05)
        assert time.monotonic() - started_s < 4
        assert await gateways.worst_second() <= 5
