"""Metrics, logs and traces of a whole gateway process agree with each other and with the upstream."""

import asyncio
import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from service.sandbox.faults import Latency
from service.telemetry.state import BACKGROUND
from tests.integration.telemetry.collector import ReceivedSpan, collecting
from tests.integration.telemetry.scraping import OPENMETRICS, Scrape, scraped
from tests.scenes.fleet import APP, Fleet, fleet, get
from tests.servers import Server, eventually

TRACE = "0af7651916cd43dd8448eb211c80319c"
LIST_PATH = "/v4/timpush/list_sched_task"
DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
CALLERS = ("c0", "c1", "c2")
CACHE = {"fresh_s": 3.0, "settled_s": 3.0, "stale_while_revalidate_s": 30.0}


async def a_series_of_requests(at: Fleet) -> None:
    """Two fetched, one joined, three hits, one stale with its renewal, one without patience, one each of 401, 404."""
    traced = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "X-Request-Id": "traced"}
    assert "fwd=miss" in (await at.page(0, q="a", limit=5, headers=traced)).outcome
    for _ in range(3):
        assert "hit" in (await at.page(0, q="a", limit=5)).outcome
    await at.upstream.add_fault(Latency(back_ms=500, calls=1))  # so that both arrive before the answer
    pages = await asyncio.gather(*(at.page(0, q="b", limit=5, caller=f"c{n}") for n in (1, 2)))
    assert sum("collapsed" in page.outcome for page in pages) == 1
    assert (await at.page(0, q="c", wait=0)).status == 504
    assert (await get(at.replicas[0].port, "/tasks")).status == 401
    assert (await get(at.replicas[0].port, "/nowhere")).status == 404
    await asyncio.sleep(CACHE["fresh_s"] + 0.1)
    assert (await at.page(0, q="a", limit=5)).status == 200
    async with asyncio.timeout(20):
        while await at.calls() < 3:
            await asyncio.sleep(0.02)


def check_metrics(scrape: Scrape, *, calls: int) -> None:
    """Check that the metrics match the requests."""
    words = ("fetched", "hit", "joined", "stale", "declined")
    outcomes = {word: scrape.sum("taskgate_requests_total", route="/tasks", outcome=word) for word in words}
    assert outcomes == {"fetched": 3, "hit": 3, "joined": 1, "stale": 1, "declined": 1}
    assert scrape.sum("taskgate_caller_requests_total", app=APP.name) == sum(outcomes.values())
    assert scrape.sum("taskgate_upstream_calls_total", app=APP.name, region="custom", result="ok") == calls
    assert scrape.sum("taskgate_upstream_calls_total") == scrape.sum("taskgate_upstream_call_duration_seconds_count")
    assert scrape.sum("taskgate_turns_total", end="used") == calls
    assert scrape.sum("taskgate_turns_total", end="used", caller="~renewal") == 1
    assert scrape.sum("taskgate_block_lookups_total", found="memory") == 1  # the second response is kept
    assert scrape.sum("taskgate_block_lookups_total", found="stale") == 1
    assert scrape.sum("taskgate_line_wait_seconds_count") == 4
    assert 1 <= scrape.sum("taskgate_worst_window_calls") <= 5
    assert scrape.sum("taskgate_slots", call="list") == scrape.sum("taskgate_slots", call="get") == 5
    assert 0 <= scrape.sum("taskgate_slots_free", call="list") <= 5
    assert scrape.sum("taskgate_memory_blocks") == 3
    assert scrape.sum("taskgate_memory_bytes") > 0
    assert 0 <= scrape.sum("taskgate_signature_age_seconds") < 60
    assert scrape.sum("taskgate_redis_call_duration_seconds_count", op="script") >= 2 * calls
    assert scrape.sum("taskgate_redis_connections") >= 2
    states = {s.labels["state"]: s.value for s in scrape.of("taskgate_app_state", app=APP.name, call="list")}
    assert states == {"serving": 1, "failing": 0, "stopped": 0, "paused": 0, "redis-away": 0}
    assert time.time() - scrape.sum("taskgate_upstream_last_success_timestamp_seconds", app=APP.name) < 60
    assert scrape.sum("taskgate_restart_needed") == scrape.sum("taskgate_log_lines_lost_total") == 0
    assert {s.labels["caller"] for s in scrape.of("taskgate_key_expiry_timestamp_seconds")} == {*CALLERS}
    assert scrape.sum("taskgate_redis_up") == scrape.sum("taskgate_ready") == scrape.sum("taskgate_build_info") == 1
    assert scrape.sum("taskgate_event_loop_lag_seconds_count") > 0
    assert scrape.sum("process_resident_memory_bytes") > 0
    assert {s.labels["caller"] for s in scrape.of("taskgate_line_places")} == {*CALLERS, *BACKGROUND}


def check_log(log: list[dict[str, Any]], *, calls: int) -> None:
    """Each call has its event, and each that a request has paid for names it."""
    called = [event for event in log if event["event"] == "upstream.call"]
    asked = {event["request_id"]: event for event in log if event["event"] == "request"}
    assert len(called) == calls
    of_requests = [event for event in called if event["request_id"] is not None]
    assert len(of_requests) == calls - 1
    for event in of_requests:
        assert asked[event["request_id"]]["outcome"] == "fetched"
        assert asked[event["request_id"]]["caller"] == event["caller"]
    assert all(event["result"] == "ok" and event["attempt"] == 1 and event["region"] == "custom" for event in called)


def check_conventions(request: ReceivedSpan, call: ReceivedSpan, *, port: int, upstream_url: str) -> None:
    """Attributes are those of OpenTelemetry's conventions for HTTP servers and clients."""
    assert (request.kind, call.kind, request.is_error, call.is_error) == ("SERVER", "CLIENT", False, False)
    assert {name: value for name, value in request.attributes.items() if not name.startswith("taskgate.")} == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/tasks",
        "url.path": "/tasks",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": 80,
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": request.attributes["network.peer.port"],
        "network.protocol.version": "1.1",
    }
    assert {name: value for name, value in call.attributes.items() if not name.startswith("taskgate.")} == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "url.full": upstream_url + LIST_PATH,
        "url.template": LIST_PATH,
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": int(upstream_url.rpartition(":")[2]),
    }


async def test_metrics_logs_and_traces_agree(own_valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests, turns, calls, lookups, events and spans are as many as the upstream and the requests say."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with collecting() as collector:
        telemetry = {"otlp_endpoint": collector.url}
        weights = dict.fromkeys(CALLERS, 1.0)
        async with fleet(own_valkey, replicas=1, weights=weights, cache=CACHE, telemetry=telemetry) as at:
            (replica,) = at.replicas
            await a_series_of_requests(at)
            scrape = await scraped(replica.metrics_port, accept=OPENMETRICS)
            calls = await at.calls() + 1  # one to warm up
            log = [json.loads(line) for line in replica.log().splitlines() if line.startswith("{")]
            eventually(lambda: sum(span.kind == "CLIENT" for span in collector.spans) == calls)
            own_valkey.kill()
            await at.page(0, q="d", wait=0.1)
            away = await scraped(replica.metrics_port)
            ready = await get(replica.port, "/readyz")
            replica.signal(signal.SIGTERM)
            assert await replica.ended() == 0

    assert calls == 4
    check_metrics(scrape, calls=calls)
    check_log(log, calls=calls)
    documented = dict(re.findall(r"^\| `(taskgate_\w+)` \| ([\w, ]*)\|", DOCUMENT.read_text(), re.MULTILINE))
    assert {name for name in scrape.families if name.startswith("taskgate_")} == documented.keys()
    for name, labels in documented.items():
        for sample in (*scrape.of(name), *scrape.of(f"{name}_count")):
            assert set(sample.labels) == {label for label in labels.strip().split(", ") if label}
    assert away.sum("taskgate_redis_up") == 0
    assert away.sum("taskgate_redis_errors_total") > 0
    assert (ready.status, ready.json["redis"], ready.json["ready"]) == (200, "away", True)
    mine = collector.of(TRACE)
    assert [span.name for span in mine] == ["GET /tasks", f"POST {LIST_PATH}", "line"]
    assert {span.attributes["taskgate.request_id"] for span in mine} == {"traced"}
    (asked,) = [event for event in log if event["event"] == "request" and event["request_id"] == "traced"]
    assert (asked["trace_id"], asked["client"], asked["calls"]) == (TRACE, "127.0.0.1", 1)
    check_conventions(*mine[:2], port=replica.port, upstream_url=at.upstream_url)
    assert not [span for span in collector.spans if span.attributes.get("url.path") in ("/livez", "/readyz")]
    assert not re.search(rb"usersig|Bearer|key-of|[?&]q=", collector.raw)
    assert not re.search(r"usersig=[^*]|key-of-", json.dumps(log))


async def test_a_cached_response_has_its_span(own_valkey: Server) -> None:
    """If requests are traced, those served by the response cache are, too."""
    with collecting() as collector:
        async with fleet(own_valkey, replicas=1, telemetry={"otlp_endpoint": collector.url}) as at:
            for _ in range(3):
                page = await at.page(0, q="again", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
                assert page.status == 200
            scrape = await scraped(at.replicas[0].metrics_port)
            at.replicas[0].signal(signal.SIGTERM)
            assert await at.replicas[0].ended() == 0
    assert scrape.sum("taskgate_block_lookups_total", found="memory") == 1  # the second response is kept
    assert [span.name for span in collector.of(TRACE)].count("GET /tasks") == 3


async def test_a_full_disk_under_the_log_costs_only_the_log(own_valkey: Server) -> None:
    """A gateway whose stderr is a full device starts, serves and ends as usual, and counts the lines it has lost."""
    async with fleet(own_valkey, replicas=1) as at:
        (replica,) = at.replicas
        replica.signal(signal.SIGTERM)
        assert await replica.ended() == 0
        replica.log_file = Path("/dev/full")
        replica.start()
        await replica.ready()
        lost = 0.0
        for _ in range(2):
            before = lost
            assert (await at.page(0, q="a")).status == 200
            async with asyncio.timeout(20):
                while lost <= before:
                    scrape = await scraped(replica.metrics_port)
                    lost = scrape.sum("taskgate_log_lines_lost_total", reason="not written")
        replica.signal(signal.SIGTERM)
        assert await replica.ended() == 0


async def test_waiting_blocks_are_counted(own_valkey: Server) -> None:
    """With the only call in twenty seconds taken, the places in line are the blocks that callers wait for."""
    async with fleet(own_valkey, replicas=1, budget={"calls": 1, "window_s": 20.0, "wait_max_s": 300.0}) as at:
        port = at.replicas[0].metrics_port
        assert (await at.page(0, q="first", wait=300)).status == 200
        wanted = {"c1": 3, "c2": 2}
        asking = [
            asyncio.create_task(at.page(0, caller=caller, q=f"{caller} {number}", wait=300))
            for caller, count in wanted.items()
            for number in range(count)
        ]
        asking += [asyncio.create_task(at.page(0, caller="c1", q="c1 0", wait=300)) for _ in range(4)]
        places: dict[str, float] = {}
        async with asyncio.timeout(20):
            while places != wanted:
                scrape = await scraped(port)
                places = {s.labels["caller"]: s.value for s in scrape.of("taskgate_line_places") if s.value}
        assert scrape.sum("taskgate_line_oldest_wait_seconds") > 0
        for task in asking:
            task.cancel()
        async with asyncio.timeout(20):
            while (await scraped(port)).sum("taskgate_line_places"):
                pass
