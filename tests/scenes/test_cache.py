"""The guarantees of the cache, kept by whole processes: each test counts the calls that arrive at the upstream."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from service.sandbox.faults import HttpStatus
from tests.scenes.fleet import APP, Fleet, fleet, key_of, path
from tests.servers import Server, until
from tests.settings import hashed

pytestmark = pytest.mark.scene

ALL: Mapping[str, str] = {"since": "-P65D", "until": "P65D"}
"""A range that holds all of the sandbox's tasks."""


async def test_ten_callers_page_through_two_thousand_tasks(own_valkey: Server) -> None:
    """Ten callers that read 2,000 tasks, twenty at a time, over 4 replicas, cost 20 calls, and each sees each task
    once."""
    async with fleet(own_valkey, cache={"fresh_s": 300.0}) as gateways:

        async def walk(caller: int) -> list[int]:
            ids: list[int] = []
            for number in range(100):
                got = await gateways.page((caller + number) % 4, caller=f"c{caller}", offset=number * 20, **ALL)
                assert got.status == 200
                assert got.json["total"] == 2000
                ids += [task["id"] for task in got.json["tasks"]]
            return ids

        lists_of_ids = await asyncio.gather(*(walk(caller) for caller in range(10)))
        assert {len(set(ids)) for ids in lists_of_ids} == {2000}
        assert len({tuple(ids) for ids in lists_of_ids}) == 1
        assert await gateways.calls() == 20
        assert await gateways.worst_second() <= 5


class _Connection:
    """One kept-alive connection that requests the same page repeatedly."""

    def __init__(self, port: int, request: bytes) -> None:
        self._port = port
        self._request = request
        self.statuses: Counter[bytes] = Counter()
        self.oldest_s = 0

    async def ask_on(self, *, seconds: float, every_s: float) -> None:
        """Repeat the request at an interval."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        began_s = time.monotonic()
        asked = 0
        try:
            while asked * every_s < seconds:
                await asyncio.sleep(max(began_s + asked * every_s - time.monotonic(), 0))
                writer.write(self._request)
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(_field(head, b"content-length")))
                self.statuses[head[9:12]] += 1
                self.oldest_s = max(self.oldest_s, int(_field(head, b"age")))
                asked += 1
        finally:
            writer.close()


def _field(head: bytes, name: bytes) -> bytes:
    return head.split(b"\r\n" + name + b": ", 1)[1].split(b"\r\n", 1)[0]


async def _one_page(gateways: Fleet, *, rate: int, seconds: float) -> tuple[list[_Connection], float]:
    """Request one page from all replicas, `rate` times a second in total, on 20 connections; return these, and the
    seconds that it took."""
    connections = [
        _Connection(
            gateways.replicas[number % len(gateways.replicas)].port,
            f"GET {path()} HTTP/1.1\r\nHost: taskgate\r\nAuthorization: Bearer {key_of('c0')}\r\n\r\n".encode(),
        )
        for number in range(20)
    ]
    began_s = time.monotonic()
    await asyncio.gather(*(each.ask_on(seconds=seconds, every_s=20 / rate) for each in connections))
    return connections, time.monotonic() - began_s


async def test_a_page_at_500_requests_a_second_costs_four_calls_at_most(own_valkey: Server) -> None:
    """500 requests a second for 6 s, fresh for 2 s, on 2 replicas: 3 or 4 calls, and nothing is much older."""
    async with fleet(own_valkey, replicas=2, cache={"fresh_s": 2.0}) as gateways:
        connections, took_s = await _one_page(gateways, rate=500, seconds=6)
        assert sum((each.statuses for each in connections), Counter()) == {b"200": 3000}
        assert 3 <= await gateways.calls() <= took_s / 2.0 + 1
        assert max(each.oldest_s for each in connections) <= 4


@pytest.mark.long
async def test_a_page_requested_for_a_minute_costs_five_calls_at_most(own_valkey: Server) -> None:
    """1,000 requests a second for one minute, fresh for 15 s: 4 or 5 calls."""
    async with fleet(own_valkey) as gateways:
        connections, took_s = await _one_page(gateways, rate=1000, seconds=60)
        assert sum((each.statuses for each in connections), Counter()) == {b"200": 60_000}
        assert 4 <= await gateways.calls() <= took_s / 15.0 + 1


@pytest.mark.parametrize("ahead", [True, False])
async def test_the_next_block_is_prefetched(own_valkey: Server, ahead: bool) -> None:
    """A caller that pages in order finds the next block fetched, or being fetched, unless the setting is off.
    Nothing is fetched beyond the end.
    """
    async with fleet(own_valkey, replicas=1, tasks=150, cache={"fresh_s": 300.0, "ahead": ahead}) as gateways:
        for offset in range(0, 100, 20):
            assert (await gateways.page(0, offset=offset, **ALL)).status == 200
        if ahead:
            async with asyncio.timeout(30):
                while await gateways.calls() < 2:
                    await asyncio.sleep(0.02)
        got = await gateways.page(0, offset=100, **ALL)
        assert ("hit" in got.outcome or "collapsed" in got.outcome) is ahead
        for offset in range(120, 200, 20):
            assert (await gateways.page(0, offset=offset, **ALL)).status == 200
        assert await gateways.calls() == 2


def _callers(**more: Any) -> dict[str, Any]:
    return {
        name: {"keys": [hashed(key_of(name))], "apps": [APP.name], **settings}
        for name, settings in {"c0": {}, "operator": {"operator": True}, **more}.items()
    }


async def test_a_purge_reaches_all_replicas(own_valkey: Server) -> None:
    """Soon after the operator's answer no replica serves old data: from Redis, memory or the response cache."""
    async with fleet(own_valkey, cache={"fresh_s": 300.0}, callers=_callers()) as gateways:
        for replica in range(4):
            for _ in range(3):
                before = await gateways.page(replica)
        assert await gateways.calls() == 1
        await _until_age(gateways, 1, headers={})  # so that a new page has another time
        refused = await gateways.ask(0, "/cache?app=shop", caller="c0", method="DELETE")
        assert refused.status == 403
        dropped = await gateways.ask(0, "/cache?app=shop", caller="operator", method="DELETE")
        assert dropped.status == 200
        assert dropped.json["dropped"] >= 2
        new = await gateways.page(0)
        assert "hit" not in new.outcome
        assert before.json["fetched_at"] < new.json["fetched_at"]
        async with asyncio.timeout(30):
            for replica in range(1, 4):
                while (page := await gateways.page(replica)).json["fetched_at"] != new.json["fetched_at"]:
                    await asyncio.sleep(0.02)
                assert page.headers["etag"] == new.headers["etag"]
        assert await gateways.calls() == 2


async def test_a_purge_without_redis_gets_503_and_clears_memory(own_valkey: Server) -> None:
    """A purge without Redis gets 503, and this replica has dropped its blocks, so that it has nothing to serve."""
    async with fleet(own_valkey, replicas=1, callers=_callers(), budget={"redis_grace_s": 0.2}) as gateways:
        assert (await gateways.page(0)).status == 200
        own_valkey.kill()
        assert (await gateways.page(0)).status == 200
        dropped = await gateways.ask(0, "/cache?app=shop", caller="operator", method="DELETE")
        assert (dropped.status, dropped.json["type"]) == (503, "/problems/store-unavailable")
        assert (await gateways.page(0, wait=1)).status == 503


async def test_requests_are_served_while_redis_evicts(own_valkey: Server) -> None:
    """If Redis evicts keys at will, every request is still served, and the budget is kept."""
    async with fleet(own_valkey, replicas=2, cache={"memory_bytes": 0, "answers_bytes": 0}) as gateways:
        used = int(own_valkey.run("INFO", "memory")["used_memory"])
        own_valkey.run("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        own_valkey.run("CONFIG", "SET", "maxmemory", used + 300_000)
        got = await asyncio.gather(*(gateways.page(n % 2, q=f"push {n}", limit=100) for n in range(20)))
        again = [await gateways.page(n % 2, q=f"push {n}", limit=100) for n in range(20)]
        assert {each.status for each in (*got, *again)} == {200}
        assert await gateways.worst_second() <= 5


async def test_values_too_large_for_memory_come_from_redis(own_valkey: Server) -> None:
    """A block and an answer that exceed the memory for them come from Redis each time, and cost no call."""
    async with fleet(own_valkey, replicas=1, cache={"memory_bytes": 4000, "answers_bytes": 2000}) as gateways:
        first = await gateways.page(0)
        again = [await gateways.page(0) for _ in range(3)]
        assert {(each.status, each.body, each.outcome.split(";")[1]) for each in again} == {(200, first.body, " hit")}
        assert await gateways.calls() == 1


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x09b" + b"x" * 60, b"\x01b" + b"x" * 60])
async def test_an_unreadable_block_is_fetched_again(own_valkey: Server, value: bytes) -> None:
    """A block that is cut off, of another format or with a wrong checksum is fetched again, once, and replaced."""
    async with fleet(own_valkey, replicas=2) as gateways:
        good = await gateways.page(0)
        [key] = [each for each in own_valkey.run("KEYS", "*:b:*:0") if own_valkey.run("STRLEN", each) > 5000]
        own_valkey.run("SET", key, value, "PX", 60_000)
        assert [(await gateways.page(1)).status for _ in range(2)] == [200, 200]
        assert await gateways.calls() == 2
        assert own_valkey.run("STRLEN", key) > 5000
        assert (await gateways.page(0)).body == good.body  # replica 0 has it in memory while it is fresh


async def test_each_cache_directive_has_its_effect(own_valkey: Server) -> None:
    """The directives of RFC 9111 and 5861 over HTTP: each has its effect, and costs a call only if necessary."""
    async with fleet(
        own_valkey, replicas=1, cache={"fresh_s": 300.0}, callers=_callers(meek={"may_force": False})
    ) as g:

        async def ask(control: str, **more: Any) -> tuple[int, str]:
            got = await g.page(0, headers={"Cache-Control": control}, **more)
            return got.status, got.outcome.split("; ttl")[0]

        assert await ask("only-if-cached") == (504, "")
        assert await g.calls() == 0
        assert (await g.page(0)).status == 200
        while int((await g.page(0)).headers["age"]) < 1:
            await asyncio.sleep(0.05)
        for control in ("max-age=100", "max-stale", "min-fresh=200", "only-if-cached", "no-store", "x=y", "max-age=x"):
            assert await ask(control) == (200, "taskgate; hit")
        assert await g.calls() == 1
        for control in ("no-cache", "max-age=0", "min-fresh=400"):
            assert await ask(control, caller="meek") == (200, "taskgate; hit")
        assert await g.calls() == 1
        assert await ask("max-age=0") == (200, "taskgate; fwd=request")
        await until(lambda: not own_valkey.run("KEYS", "*:flights"))  # else the next request joins
        assert await ask("no-cache") == (200, "taskgate; fwd=request")
        assert await g.calls() == 3
        await g.upstream.add_fault(HttpStatus(status=500))
        assert await ask("max-age=0") == (502, "")
        assert await ask("no-cache, max-stale=0, stale-if-error=0") == (502, "")
        assert await ask("min-fresh=400") == (502, "")
        for allowed in ("no-cache, stale-if-error=60", "max-age=0, max-stale=60"):
            status, outcome = await ask(allowed)
            assert (status, outcome) in {(200, "taskgate; fwd=request"), (200, "taskgate; hit")}
        await g.upstream.clear_faults()
        tag = (await g.page(0)).headers["etag"]
        same = await g.page(0, headers={"If-None-Match": tag})
        assert (same.status, same.body) == (304, b"")


async def test_a_stale_page_is_served_while_it_is_renewed_or_fails(own_valkey: Server) -> None:
    """After its freshness a page is served stale while one call renews it; on an error for as long as allowed; then
    fresh again."""
    cache = {"fresh_s": 1.0, "stale_while_revalidate_s": 1.0, "stale_if_error_s": 60.0}
    async with fleet(own_valkey, replicas=1, cache=cache) as g:
        first = await g.page(0)
        await g.upstream.add_fault(HttpStatus(status=500))
        await _until_age(g, 2, headers={"Cache-Control": "max-stale=60"})
        stale = await g.page(0)
        assert (stale.status, stale.body) == (200, first.body)
        assert "detail=error" in stale.outcome
        assert (await g.page(0, headers={"Cache-Control": "stale-if-error=0"})).status == 502
        assert (await g.page(0, headers={"Cache-Control": "no-cache"})).status == 502
        await g.upstream.clear_faults()
        async with asyncio.timeout(30):  # the upstream is known to fail and is tried in the background
            while (await g.page(0)).body == first.body:
                await asyncio.sleep(0.05)


async def test_polls_of_an_unchanged_list_get_304(own_valkey: Server) -> None:
    """Polls get 304 on every replica, though the page is re-fetched repeatedly and its relative range moves. A
    restarted replica returns the same tag.
    """
    cache = {"fresh_s": 1.0, "stale_while_revalidate_s": 0.0, "align_s": 1}
    asked = {"since": "-PT1H", "until": "now", "sort": "created_at"}
    async with fleet(own_valkey, replicas=2, cache=cache) as g:
        first = await g.page(0, **asked)
        tag, calls = first.headers["etag"], await g.calls()
        polls = 0
        async with asyncio.timeout(60):
            while await g.calls() < calls + 4:
                got = await g.page(polls % 2, headers={"If-None-Match": tag}, **asked)
                assert (got.status, got.headers["etag"]) == (304, tag)
                polls += 1
                await asyncio.sleep(0.05)
        assert polls > 10
        g.replicas[0].signal(signal.SIGTERM)
        await g.replicas[0].ended()
        g.replicas[0].start()
        await g.replicas[0].ready()
        again = await g.page(0, headers={"If-None-Match": tag}, **asked)
        assert (again.status, again.headers["etag"]) == (304, tag)


async def _until_age(gateways: Fleet, age_s: int, *, headers: Mapping[str, str]) -> None:
    async with asyncio.timeout(30):
        while int((await gateways.page(0, headers=headers)).headers["age"]) < age_s:
            await asyncio.sleep(0.1)


async def test_memory_is_never_fresher_than_redis(own_valkey: Server) -> None:
    """A block's age counts from its fetch, however late a replica read it: all replicas report one age, and one end."""
    async with fleet(own_valkey, replicas=2, cache={"fresh_s": 4.0}) as g:
        first = await g.page(0)
        began_s = first.at_s
        while int((await g.page(0)).headers["age"]) < 2:
            await asyncio.sleep(0.05)
        late = await g.page(1)
        assert late.headers["age"] in {"2", "3"}
        assert late.headers["cache-control"] == first.headers["cache-control"] == "private, max-age=4"
        fresh_until_s = 0.0
        while "ttl=-" not in (got := await g.page(1)).outcome and got.headers["age"] != "0":
            fresh_until_s = got.at_s - got.took_s
            await asyncio.sleep(0.02)
        assert fresh_until_s - began_s < 5  # 6 if the age counted from the read by this replica
