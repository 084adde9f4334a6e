"""Requests are counted correctly: through the real routes, on a real socket, read by the official parsers."""

import asyncio
import random
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import generate_latest, make_asgi_app

from service.model.calls import CallKind
from service.model.errors import NothingStored, UpstreamTimeout, WaitTooLong
from service.model.freshness import StaleReason
from service.model.origin import FetchCost
from service.model.pages import Source
from service.telemetry.metrics import Metrics
from service.telemetry.metrics_server import serving_metrics
from service.telemetry.upstream_calls import CalledApp
from service.web.settings import default_web_settings
from service.web.site import create_web
from tests.http.fake_gateway import NOW_S, FakeGateway
from tests.http.site import KEY, feeds_over, key_callers, raw, served
from tests.integration.telemetry.scraping import OPENMETRICS, read, scraped
from tests.observations import observed
from tests.servers import until

TASKS = "/tasks?app=shop"


class Bench:
    """The HTTP side around a fake gateway, and its metrics."""

    def __init__(self) -> None:
        self.gateway = FakeGateway()
        self.port = self.metrics_port = 0
        self.metrics = Metrics(
            version="1",
            apps={"shop": CalledApp(region="singapore", windows_s=dict.fromkeys(CallKind, 1.0))},
            callers=lambda: ("single", "several"),
            clock=lambda: 0.0,
        )
        self.app = create_web(
            self.gateway,
            key_callers(),
            default_web_settings,
            feeds=feeds_over(self.gateway),
            clock=lambda: NOW_S,
            observers=[lambda seen: self.metrics.requests([seen])],
        )

    async def get(self, target: str = TASKS, *, key: str | None = KEY, method: str = "GET", field: str = "") -> int:
        """Send a request, with a further header line; return the status."""
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        authorization += f"{field}\r\n" if field else ""
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{authorization}\r\n"
        return int((await raw(self.port, head.encode())).split(b" ")[1])

    async def served(self, source: Source, *, field: str = "", **changes: Any) -> int:
        """Request a page that comes from `source`."""
        self.gateway.changes = {"source": source, **changes}
        return await self.get(field=field)

    async def refused(self, error: Exception, *, field: str = "") -> int:
        """Send a request for which the gateway raises."""
        self.gateway.error = error
        try:
            return await self.get(field=field)
        finally:
            self.gateway.error = None

    async def hung_up(self) -> None:
        """Send a request, and hang up before the answer."""
        self.gateway.go = asyncio.Event()
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {TASKS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode())
        await until(lambda: self.gateway.waiting == 1)
        await asyncio.sleep(0.03)  # a hang-up is watched for only after this long
        writer.close()
        await until(lambda: self.gateway.cancelled == 1)
        self.gateway.go = None


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """A bench that listens."""
    made = Bench()
    scrapes = make_asgi_app(made.metrics.registry)
    async with (
        serving_metrics(scrapes, probes=made.app, host="127.0.0.1", port=0) as made.metrics_port,
        served(made.app, refusal=made.app.refuse) as made.port,
    ):
        yield made


async def test_each_kind_of_request_is_counted_once_as_what_it_was() -> None:
    """After a known series the counts by route, method, status and outcome are exactly that series, and no more."""
    async with bench() as at:
        for source, times in ((Source.HIT, 5), (Source.FETCHED, 2), (Source.JOINED, 3), (Source.STALE, 1)):
            at.gateway.cost = FetchCost(waited_s=0.3, upstream_s=0.1, calls=1)
            for _ in range(times):
                assert await at.served(source) == 200
        assert await at.refused(WaitTooLong(place=1, estimate_s=9, patience_s=1)) == 503
        assert await at.refused(UpstreamTimeout("late", app="shop")) == 504
        assert await at.refused(RuntimeError("a fault of ours")) == 500
        assert await at.get(key=None) == 401
        assert await at.get(key="wrong") == 401
        assert await at.get("/nowhere") == 404
        assert await at.get("/problems/nothing") == 404
        assert await at.get("/tasks?app=unknown") == 404
        assert await at.get(method="DELETE") == 405
        assert await at.get(method="BREW") == 501
        assert await at.get("/livez", method="HEAD") == 200
        assert await at.get("/tasks?app=shop&limit=x") == 400
        await at.hung_up()
        scrape = await scraped(at.metrics_port)

    counted = {
        (s.labels["route"], s.labels["method"], s.labels["status"], s.labels["outcome"]): s.value
        for s in scrape.of("taskgate_requests_total")
    }
    assert counted == {
        ("/tasks", "GET", "200", "hit"): 5,
        ("/tasks", "GET", "200", "fetched"): 2,
        ("/tasks", "GET", "200", "joined"): 3,
        ("/tasks", "GET", "200", "stale"): 1,
        ("/tasks", "GET", "503", "refused"): 1,
        ("/tasks", "GET", "504", "none"): 1,
        ("/tasks", "GET", "500", "none"): 1,
        ("/tasks", "GET", "401", "none"): 2,
        ("/tasks", "GET", "404", "none"): 1,
        ("/tasks", "GET", "400", "none"): 1,
        ("/tasks", "GET", "499", "none"): 1,
        ("unrouted", "DELETE", "405", "none"): 1,
        ("unrouted", "other", "501", "none"): 1,
        ("/problems/{name}", "GET", "404", "none"): 1,
        ("unrouted", "GET", "404", "none"): 1,
        ("/livez", "HEAD", "200", "none"): 1,
    }
    assert scrape.sum("taskgate_request_duration_seconds_count") == sum(counted.values())
    assert scrape.sum("taskgate_request_duration_seconds_count", route="/tasks", outcome="hit") == 5
    waited = scrape.of("taskgate_line_wait_seconds_count", caller="single", app="shop")
    assert {s.labels["outcome"]: s.value for s in waited} == {
        "fetched": 2,
        "joined": 3,
        "refused": 1,
        "failed": 2,
        "hung-up": 1,
    }
    assert scrape.sum("taskgate_line_wait_seconds_bucket", le="0.2") == 0
    assert scrape.sum("taskgate_line_wait_seconds_sum") == pytest.approx(9 * 0.3)
    assert scrape.sum("taskgate_caller_requests_total", caller="single", app="shop", outcome="hit") == 5
    assert {s.labels["problem"]: s.value for s in scrape.of("taskgate_problems_total")} == {
        "wait-too-long": 1,
        "upstream-timeout": 1,
        "failed": 1,
        "unauthenticated": 2,
        "not-found": 2,
        "unknown-app": 1,
        "method-not-allowed": 1,
        "501": 1,
        "bad-request": 1,
    }


async def test_declined_and_refused_requests_are_counted_separately() -> None:
    """`refused` and `fallback` are failures; `declined` is what a caller that excludes a fetch or a wait has
    requested."""
    impatient = WaitTooLong(place=1, estimate_s=9, patience_s=0)
    async with bench() as at:
        assert await at.refused(WaitTooLong(place=1, estimate_s=9, patience_s=1), field="Prefer: wait=1") == 503
        assert await at.refused(impatient) == 503, "by the settings' default"
        assert await at.refused(impatient, field="Prefer: wait=0") == 503
        assert await at.refused(NothingStored(), field="Cache-Control: only-if-cached") == 504
        for reason in StaleReason:
            await at.served(Source.STALE, stale_reason=reason)
            await at.served(Source.STALE, stale_reason=reason, field="Prefer: wait=0")
        scrape = await scraped(at.metrics_port)
    outcomes = {s.labels["outcome"]: s.value for s in scrape.of("taskgate_caller_requests_total")}
    assert outcomes == {"refused": 2, "declined": 2, "fallback": 3, "stale": 3}
    problems = {s.labels["problem"]: s.value for s in scrape.of("taskgate_problems_total")}
    assert problems == {"wait-too-long": 3, "nothing-stored": 1}


async def test_both_formats_have_the_same_series() -> None:
    """A scraper that accepts OpenMetrics gets the same series and values as one that takes the older text."""
    async with bench() as at:
        await at.served(Source.HIT)
        plain, modern = await scraped(at.metrics_port), await scraped(at.metrics_port, accept=OPENMETRICS)
    assert plain.series() == modern.series()
    assert plain.sum("taskgate_requests_total") == modern.sum("taskgate_requests_total") == 1


async def test_a_flood_of_made_up_names_adds_no_series() -> None:
    """Random paths, queries, keys, request ids and methods leave as many series as one of each."""
    chance = random.Random(7)

    def word() -> str:
        return "".join(chance.choices(string.ascii_letters, k=12))

    async def flood(at: Bench, times: int) -> set[tuple[object, ...]]:
        for _ in range(times):
            await at.get(f"/{word()}/{word()}")
            await at.get(f"/problems/{word()}")
            await at.get(f"/tasks?app={word()}&{word()}={word()}")
            await at.get(f"/tasks?app=shop&q={word()}")
            await at.get(key=word())
            await at.get(method=word().upper())
        return (await scraped(at.metrics_port)).series()

    async with bench() as at:
        once = await flood(at, 1)
        assert await flood(at, 60) == once


def test_unknown_callers_share_one_series() -> None:
    """However many names credentials contain, those not in the settings share one series, and no state is kept."""
    metrics = Bench().metrics
    metrics.requests(
        [observed(caller=f"c{number}", app=f"a{number}", outcome="fetched", waited_s=0.1) for number in range(1000)]
    )
    scrape = read("text/plain", generate_latest(metrics.registry).decode())
    (sample,) = scrape.of("taskgate_caller_requests_total")
    assert (sample.labels, sample.value) == ({"caller": "other", "app": "", "outcome": "fetched"}, 1000)
    assert scrape.sum("taskgate_line_wait_seconds_count", caller="other") == 1000
