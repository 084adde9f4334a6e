"""A Redis that replies with errors: each fault has its problem and its log line, and costs no call."""

import asyncio
from collections.abc import Callable, Iterator

import pytest

from tests.scenes.fleet import Fleet, fleet
from tests.servers import Server

pytestmark = pytest.mark.scene


def _out_of_memory(server: Server) -> Callable[[], object]:
    server.run("CONFIG", "SET", "maxmemory", "1")
    return lambda: server.run("CONFIG", "SET", "maxmemory", "0")


def _refuses_scripts(server: Server) -> Callable[[], object]:
    server.run("ACL", "SETUSER", "default", "-@scripting")
    return lambda: server.run("ACL", "SETUSER", "default", "+@all")


def _read_only(server: Server) -> Callable[[], object]:
    server.run("REPLICAOF", "127.0.0.1", "1")
    return lambda: server.run("REPLICAOF", "NO", "ONE")


def _never_answers(server: Server) -> Callable[[], object]:
    server.freeze()
    return server.thaw


@pytest.fixture
def settled(own_valkey: Server) -> Iterator[Server]:
    """A server whose connections are counted when the test ends."""
    yield own_valkey
    assert own_valkey.connections() <= 1


@pytest.mark.parametrize("fault", [_refuses_scripts, _read_only, _never_answers])
async def test_a_redis_that_refuses_is_a_503(settled: Server, fault: Callable[[Server], Callable[[], object]]) -> None:
    """Requests get 503 with `Retry-After`, and the log has the reason; no call, no crash; they are served again
    afterwards."""
    async with fleet({"url": settled.url}, replicas=1, budget={"redis_grace_s": 0.5}) as gateways:
        mend = fault(settled)
        got = await asyncio.gather(*(gateways.page(0, caller=f"c{n}", q=f"refused {n}") for n in range(20)))
        assert {each.status for each in got} == {503}
        assert {each.json["type"].rsplit("/", 1)[-1] for each in got} == {"store-unavailable"}
        assert all(int(each.headers["retry-after"]) >= 1 for each in got)
        assert await gateways.calls() == 0
        mend()
        async with asyncio.timeout(30):
            while (await gateways.page(0, q="mended")).status != 200:
                await asyncio.sleep(0.05)
        assert "budget.redis_away" in gateways.replicas[0].log()
        assert "Traceback" not in gateways.replicas[0].log()
        await _nothing_is_left(gateways, settled)


async def test_a_full_redis_costs_only_its_stored_values(settled: Server) -> None:
    """If Redis is out of memory, turns continue: pages are served, and never over the budget."""
    async with fleet(settled, replicas=2) as gateways:
        mend = _out_of_memory(settled)
        got = await asyncio.gather(*(gateways.page(n % 2, caller=f"c{n}", q=f"full {n}") for n in range(20)))
        assert {each.status for each in got} == {200}
        assert await gateways.worst_second() <= 5
        mend()
        await _nothing_is_left(gateways, settled)


async def test_a_backlog_leaves_nothing_behind(settled: Server) -> None:
    """After a backlog that was served, abandoned and refused, Redis holds no report, no flight, and no tag."""
    async with fleet(settled, replicas=2) as gateways:
        served = [gateways.page(n % 2, caller=f"c{n}", q=f"served {n}") for n in range(12)]
        refused = [gateways.page(n % 2, caller=f"c{n}", q=f"refused {n}", wait=1) for n in range(30)]
        given_up = [asyncio.create_task(gateways.page(n % 2, caller="c1", q=f"gone {n}")) for n in range(50)]
        got = asyncio.gather(*served, *refused)
        await asyncio.sleep(1)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        assert {each.status for each in await got} == {200, 503}
        await _nothing_is_left(gateways, settled)


async def _nothing_is_left(gateways: Fleet, server: Server) -> None:
    """Nothing in the scheduler's state, once its leases are over, nor connections beyond the pools' bound."""
    async with asyncio.timeout(30):
        while (await gateways.page(0, q="one more", wait=5)).status != 200:
            await asyncio.sleep(0.05)
    async with asyncio.timeout(40):
        while server.run("EXISTS", "taskgate:{shop}:reports", "taskgate:{shop}:flights"):
            await asyncio.sleep(0.05)
    assert server.run("HLEN", "taskgate:{shop}:tags") <= 1
    assert server.connections() <= 34 * len(gateways.replicas)
