"""The guarantees of the budget, kept by whole processes: each test is judged by the upstream's own arrival times."""

import asyncio
import random
import statistics
from collections import Counter

import pytest

from service.sandbox.faults import Latency
from tests.forks import taskgate
from tests.scenes.fleet import Fleet, Got, fleet
from tests.servers import Server

pytestmark = pytest.mark.scene
USED = 0.98
"""The least use of the slots (rule 2 of the budget)."""


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.long)])
async def test_the_limit_is_kept_and_used(own_valkey: Server, count: int) -> None:
    """40 callers request many blocks at once on 4 replicas, with delays of 0 to 80 ms each way: never 6 calls in a
    second, and 98% of the slots."""
    async with fleet(own_valkey, budget={"wait_max_s": 300.0}) as gateways:
        await gateways.upstream.add_fault(Latency(there_spread_ms=40, back_spread_ms=40))
        got = await _many_blocks(gateways, count)
        assert {each.status for each in got} == {200}
        arrivals = await gateways.arrivals_ms()
        assert len(arrivals) == count
        assert await gateways.worst_second() <= 5
        round_trip_s = statistics.mean(each.upstream_s for each in got)
        assert _use(arrivals, round_trip_s=round_trip_s) >= USED, (round_trip_s, arrivals)


def _use(arrivals_ms: list[float], *, round_trip_s: float, skipped: int = 10) -> float:
    """Return the used share of the calls that rule 2 allows while the line is busy."""
    took_ms = arrivals_ms[-1] - arrivals_ms[skipped]
    return (len(arrivals_ms) - 1 - skipped) * (1000 + round_trip_s * 1000) / 5 / took_ms


async def _many_blocks(gateways: Fleet, count: int) -> list[Got]:
    async def one(number: int) -> Got:
        await asyncio.sleep(random.uniform(0, 0.08))
        return await gateways.page(number % 4, caller=f"c{number % 40}", q=f"block {number}", wait=300)

    return await asyncio.gather(*(one(number) for number in range(count)))


async def test_turns_follow_the_weights(own_valkey: Server) -> None:
    """The heavy caller waits on three replicas, the light one on one; of 60 turns the heavy one gets 45.

    The first turns do not count: whichever caller is reported first has all slots that are free by then.
    """
    weights = {"heavy": 3.0, "light": 1.0}
    async with fleet(own_valkey, weights=weights, budget={"wait_max_s": 300.0}) as gateways:
        served: list[tuple[str, int]] = []

        async def one(replica: int, caller: str, number: int) -> None:
            answer = await gateways.page(replica, caller=caller, q=f"{caller} {number}", wait=300)
            served.append((caller, answer.status))

        heavy = [asyncio.create_task(one(number % 3, "heavy", number)) for number in range(150)]
        light = [asyncio.create_task(one(3, "light", number)) for number in range(150)]
        try:
            async with asyncio.timeout(30):
                while len(served) < 68:
                    await asyncio.sleep(0.05)
        finally:
            for task in (*heavy, *light):
                task.cancel()
            await asyncio.gather(*heavy, *light, return_exceptions=True)
        assert {status for _, status in served} == {200}
        assert Counter(caller for caller, _ in served[8:68])["heavy"] == pytest.approx(45, abs=1)
        assert await gateways.worst_second() <= 5


async def test_a_rare_caller_is_served_next(own_valkey: Server) -> None:
    """Beside a caller with a backlog of half a minute, one with a request every two seconds never waits for more than
    a few calls.

    That it waits 0.3 s at the median and 0.7 s at most is shown in simulated time:
    tests/contract/test_scheduler_over_time.py.
    """
    async with fleet(own_valkey, weights={"busy": 1.0, "rare": 1.0}, budget={"wait_max_s": 300.0}) as gateways:
        busy = [asyncio.create_task(gateways.page(n % 4, caller="busy", q=f"busy {n}", wait=300)) for n in range(200)]
        waits: list[float] = []
        while await gateways.calls() < 10:
            await asyncio.sleep(0.05)
        for number in range(6):
            await asyncio.sleep(2)
            answer = await gateways.page(number % 4, caller="rare", q=f"rare {number}")
            assert answer.status == 200
            waits.append(answer.waited_s)
        assert sum(not task.done() for task in busy) > 50, "the backlog has lasted"
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        waits.sort()
        assert waits[len(waits) // 2] < 0.5, waits
        assert waits[-1] < 1.5, waits
        assert await gateways.worst_second() <= 5


async def test_a_thousand_requests_for_one_page_cost_one_call(own_valkey: Server) -> None:
    """From 20 callers on 4 replicas at once; all get the same bytes."""
    async with fleet(own_valkey) as gateways:
        await gateways.upstream.add_fault(Latency(back_ms=300))
        got = await asyncio.gather(*(gateways.page(n % 4, caller=f"c{n % 20}", q="same") for n in range(1000)))
        assert {each.status for each in got} == {200}
        assert len({each.body for each in got}) == 1
        assert await gateways.calls() == 1


async def test_a_caller_that_hangs_up_costs_no_call(own_valkey: Server) -> None:
    """A caller requests 500 blocks and hangs up: none is fetched, and it is served at once when it returns."""
    async with fleet(own_valkey) as gateways:
        asked = [asyncio.create_task(gateways.page(n % 4, caller="c1", q=f"gone {n}")) for n in range(500)]
        while await gateways.calls() < 5:
            await asyncio.sleep(0.02)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        before = await gateways.calls()
        await asyncio.sleep(2.0)
        assert await gateways.calls() - before <= 4  # until the hang-ups are noticed; else 10
        back = await gateways.page(0, caller="c1", q="back")
        assert back.status == 200
        assert back.waited_s < 1.0  # behind its 500 blocks it would wait 100 s


async def test_calls_by_taskgate_check_take_turns(own_valkey: Server) -> None:
    """While callers use the whole budget, six people run `taskgate check --call`: never 6 calls in a second."""
    async with fleet(own_valkey, replicas=2, budget={"wait_max_s": 300.0}) as gateways:

        async def check() -> tuple[int, str]:
            status, out, err = await taskgate("check", str(gateways.replicas[0].configuration), "--call")
            return status, out + err

        pages = [asyncio.create_task(gateways.page(n % 2, caller="c0", q=f"block {n}", wait=300)) for n in range(60)]
        checks = await asyncio.gather(*(check() for _ in range(6)))
        assert all(status == 0 and ": ok, " in said for status, said in checks), checks
        assert {each.status for each in await asyncio.gather(*pages)} == {200}
        assert len(await gateways.arrivals_ms()) == 66
        assert await gateways.worst_second() <= 5


async def test_both_budgets_are_used_fully_and_separately(own_valkey: Server) -> None:
    """Each kind of call keeps to five a second by itself and uses 98%; repeated ids are joined or stored.

    That lists are called at the same moments as without tasks, to the millisecond, is shown in virtual time:
    tests/simulation/test_two_kinds.py.
    """
    weights = {f"c{number}": 1.0 for number in range(500)}
    async with fleet(own_valkey, weights=weights, budget={"wait_max_s": 300.0}) as gateways:
        await gateways.upstream.add_fault(Latency(there_spread_ms=20, back_spread_ms=20))

        async def task(number: int) -> Got:
            await asyncio.sleep(random.uniform(0, 0.08))
            target = f"/tasks/{1_000_000_001 + number % 50}?app=shop"
            return await gateways.ask(number % 4, target, caller=f"c{number}", headers={"Prefer": "wait=300"})

        lists, tasks = await asyncio.gather(
            _many_blocks(gateways, 50), asyncio.gather(*(task(number) for number in range(500)))
        )
        assert {each.status for each in (*lists, *tasks)} == {200}
        assert len({each.json["id"] for each in tasks}) == 50
        for call, got, count in (("list", lists, 50), ("get", tasks, 50)):
            arrivals = await gateways.arrivals_ms(call)
            assert len(arrivals) == count
            assert await gateways.worst_second(call) <= 5
            round_trip_s = statistics.mean(each.upstream_s for each in got if each.upstream_s)
            assert _use(arrivals, round_trip_s=round_trip_s) >= USED, (call, round_trip_s, arrivals)
