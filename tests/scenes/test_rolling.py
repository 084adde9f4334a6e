"""Replicas are restarted one after the other under load, behind a Kubernetes-like Service."""

import asyncio
from collections import Counter

import httpx
import pytest

from service.sandbox.faults import Latency
from tests.control_client import NO_TLS
from tests.scenes.fleet import APP, fleet, key_of
from tests.scenes.service import service
from tests.servers import Server

pytestmark = pytest.mark.scene

UNANSWERED = "Server disconnected without sending a response."


@pytest.mark.parametrize("restarts", [2, pytest.param(20, marks=pytest.mark.long)])
async def test_a_rolling_restart_fails_no_request(own_valkey: Server, restarts: int) -> None:
    """No request is refused, cut off or reset, on kept connections or new ones, in line or not; never 6 calls in a
    second. A kept connection may be closed just as its caller sends; the caller then retries (RFC 9112, 9.3.1), at
    most once for each restart, if this process gets no time between a response and the next request.
    """
    async with fleet(own_valkey, replicas=3) as gateways, service(gateways.replicas) as at:
        await gateways.upstream.add_fault(Latency(back_ms=50))
        seen: Counter[str] = Counter()

        async def caller(number: int, *, kept: bool) -> None:
            limits = httpx.Limits(max_keepalive_connections=1 if kept else 0)
            headers = {"Authorization": f"Bearer {key_of(f'c{number}')}", "Prefer": "wait=20"}
            url = f"http://127.0.0.1:{at.port}/tasks"
            async with httpx.AsyncClient(
                limits=limits, headers=headers, timeout=30, trust_env=False, verify=NO_TLS
            ) as client:
                for count in range(1_000_000):
                    query = f"{number} {count}" if count % 20 == 0 else "same"
                    try:
                        answer = await client.get(url, params={"app": APP.name, "q": query})
                        seen[str(answer.status_code)] += 1
                    except httpx.HTTPError as exc:
                        if kept and str(exc) == UNANSWERED:
                            seen["asked again"] += 1
                            continue
                        seen[f"{type(exc).__name__} (kept: {kept})"] += 1
                    await asyncio.sleep(0.02)

        load = [asyncio.create_task(caller(number, kept=number % 2 == 0)) for number in range(6)]
        statuses = [await at.roll(gateways.replicas[n % 3], pre_stop_s=1.0) for n in range(restarts)]
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
        assert statuses == [0] * restarts
        assert seen.keys() <= {"200", "asked again"}, seen
        assert seen["asked again"] <= restarts
        assert seen["200"] > 20 * restarts
        assert await gateways.worst_second() <= 5
