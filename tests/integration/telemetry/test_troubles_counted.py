"""Failures and returned turns are counted by caller, kind and reason, on whole replicas."""

import asyncio
import time

from service.sandbox.faults import ErrorCode, HttpStatus, Latency
from tests.integration.telemetry.scraping import Scrape, scraped
from tests.scenes.fleet import APP, Fleet, fleet
from tests.servers import Server

CALLERS = {"c0": 1.0, "c1": 1.0}
INTERNAL_ERROR = 91000


async def scrapes(at: Fleet) -> list[Scrape]:
    """Scrape all replicas."""
    return [await scraped(replica.metrics_port) for replica in at.replicas]


async def test_a_needless_turn_is_refunded_to_its_caller(valkey: Server) -> None:
    """If two callers on two replicas request one block, one's turn is used, and the other's is refunded and counted
    as such."""
    async with fleet(valkey, replicas=2, weights=CALLERS) as at:
        await at.upstream.add_fault(Latency(back_ms=300))
        pages = await asyncio.gather(*(at.page(n, q="wanted by both", caller=f"c{n}") for n in (0, 1)))
        scrape = await scrapes(at)
        assert await at.calls() == 1
    joined = ["collapsed" in page.outcome for page in pages]
    assert sorted(joined) == [False, True]
    for number, has_joined in enumerate(joined):
        ends = {
            sample.labels["end"]: sample.value
            for sample in scrape[number].of("taskgate_turns_total", app=APP.name, caller=f"c{number}")
        }
        warm_up = 1 if number == 0 else 0
        used = warm_up + (0 if has_joined else 1)
        assert ends.get("used", 0) == used
        assert ends.get("joined", 0) == int(has_joined)


async def test_calls_that_fail_are_counted_by_their_kind(valkey: Server) -> None:
    """An error code and an HTTP status are counted as one call each of their kind, in the app's region, beside the
    successful ones; blocks that do not fit into memory are counted as evicted."""
    async with fleet(valkey, replicas=1, weights=CALLERS, cache={"memory_bytes": 120_000}) as at:
        await at.upstream.add_fault(ErrorCode(code=INTERNAL_ERROR, calls=1))
        assert (await at.page(0, since="-P31D")).status == 200  # tried again
        await at.upstream.add_fault(HttpStatus(status=502, calls=1))
        statuses = [(await at.page(0, since=f"-P{days}D")).status for days in (32, 33, 34, 35)]
        (scrape,) = await scrapes(at)
        calls = await at.calls()
    results = {
        sample.labels["result"]: sample.value
        for sample in scrape.of("taskgate_upstream_calls_total", app=APP.name, region="custom")
        if sample.value
    }
    assert results.pop("transient") == results.pop("http_status") == 1
    assert results == {"ok": calls + 1 - 2}, statuses  # one to warm up
    assert 0 < scrape.sum("taskgate_memory_bytes") <= 120_000
    assert scrape.sum("taskgate_memory_evictions_total") == results["ok"] - scrape.sum("taskgate_memory_blocks") > 0


async def test_reloads_are_counted_with_the_result_of_the_last(valkey: Server) -> None:
    """A rejected configuration stays visible until a valid one is applied; the time is that at which the current
    one was read."""
    async with fleet(valkey, replicas=1, weights=CALLERS) as at:
        (replica,) = at.replicas
        good = replica.configuration.read_text()
        texts = (good, good.replace("weight: 1.0", "weight: 2.0"), "apps: 7", good)
        times = []
        for text, expected in zip(texts, ((0, 0, 1), (1, 0, 1), (1, 1, 0), (2, 1, 1)), strict=True):
            if expected[0] or expected[1]:
                replica.configuration.write_text(text)
            async with asyncio.timeout(20):
                while (found := await reloads(at))[:3] != expected:
                    await asyncio.sleep(0.05)
            times.append(found[3])
        assert times[0] < times[1] == times[2] < times[3]
        assert time.time() - 60 < times[0]


async def reloads(at: Fleet) -> tuple[float, float, float, float]:
    """How many configurations the first replica has taken and refused, whether the last was taken, and when one was."""
    scrape = (await scrapes(at))[0]
    ok, refused = (scrape.sum("taskgate_configuration_reloads_total", result=result) for result in ("ok", "refused"))
    last = scrape.sum("taskgate_config_last_reload_successful")
    return ok, refused, last, scrape.sum("taskgate_config_last_reload_success_timestamp_seconds")
