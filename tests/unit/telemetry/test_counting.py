"""What is counted: histograms, the worst window, calls, Redis, the event loop."""

import asyncio
import time
from typing import get_args

import pytest
from prometheus_client import generate_latest

from service.budget.line.turns import END_OF, TURN_ENDS
from service.budget.scheduler.interfaces import AlreadyStored, Begun, Joined, Lapsed, Paused
from service.model.budgets import worst_window
from service.model.calls import CallKind
from service.model.errors import (
    StoreDetail,
    UpstreamBroken,
    UpstreamHTTPStatus,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from service.model.origin import NOBODY, Payer
from service.telemetry import lag
from service.telemetry.families import Histogram
from service.telemetry.lag import LoopLag
from service.telemetry.metrics import Metrics
from service.telemetry.recent_calls import RecentAppCalls
from service.telemetry.store_calls import StoreMetrics
from service.telemetry.upstream_calls import KEEP_MAX, KEEP_S, CalledApp, CallMetrics
from service.upstream.call_events import UpstreamCall, UpstreamCallEnd
from service.upstream.codes import CodeKind
from service.upstream.verdicts import RESULTS, result_of
from tests.integration.telemetry.scraping import read

SEOUL = CalledApp(region="seoul", windows_s=dict.fromkeys(CallKind, 1.0))


def test_a_value_on_a_bound_belongs_to_it() -> None:
    """Buckets count what is not above their bound, the last one everything."""
    seen = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        seen.observe(value)
    assert seen.buckets() == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
    assert (seen.count, seen.total) == (5, 14.0)


@pytest.mark.parametrize(
    ("times_s", "worst"),
    [
        ((), 0),
        ((1.0,), 1),
        ((1.0, 2.0, 3.0), 1),
        ((1.0, 1.999, 2.5, 2.9), 3),
        ((0.0, 0.0, 0.0, 5.0), 3),
    ],
)
def test_the_worst_window_has_all_calls_closer_than_a_window(times_s: tuple[float, ...], worst: int) -> None:
    """Calls a whole window apart are in no common window; all that are closer are."""
    assert worst_window(times_s, 1.0) == worst


def ended(*, sent_at_s: float | None, result: str = "ok") -> UpstreamCallEnd:
    """A call that has ended."""
    call = UpstreamCall(app="shop", payer=Payer(caller="c", origin=NOBODY, waited_s=0.0), attempt=1)
    return UpstreamCallEnd(call=call, result=result, code=None, took_s=0.1, sent_at_s=sent_at_s)


def summary(tally: CallMetrics) -> dict[str, float]:
    """The worst window, and calls by result."""
    samples = [sample for family in tally.collect() for sample in family.samples]
    found = {s.labels["result"]: s.value for s in samples if s.name == "taskgate_upstream_calls_total" and s.value}
    return found | {"worst": next(s.value for s in samples if s.name == "taskgate_worst_window_calls")}


def test_only_calls_of_the_last_minute_count() -> None:
    """Only calls of the last minute count; a refused query is a success of the app, a failure changes no success."""
    now_s, wall_s = 100.0, 5000.0
    recent = RecentAppCalls(("shop", "news"), clock=lambda: now_s, wall=lambda: wall_s)
    assert (recent.succeeded_at_s(), recent.of("shop", CallKind.LIST).minute.ok) == ({}, 0)
    for result in ("ok", CodeKind.CALLER_FAULT, "timeout"):
        recent(ended(sent_at_s=1.0, result=result))
    wall_s = 5001.0
    recent(ended(sent_at_s=1.0, result="timeout"))
    assert recent.succeeded_at_s() == {("shop", CallKind.LIST): 5000.0}
    assert (recent.of("shop", CallKind.LIST).minute.ok, recent.of("shop", CallKind.LIST).minute.failures) == (2, 2)
    assert recent.of("news", CallKind.LIST).minute.failures == 0
    now_s = 160.5
    assert (recent.of("shop", CallKind.LIST).minute.ok, recent.of("shop", CallKind.LIST).minute.failures) == (0, 0)
    for _ in range(1000):
        now_s += 1
        recent(ended(sent_at_s=1.0))
    assert recent.of("shop", CallKind.LIST).minute.ok == 60


def test_calls_that_were_never_sent_are_in_no_window() -> None:
    """A call counts by its result always, for the worst window only if it was sent, whatever the order of the ends."""
    now_s = 100.0
    tally = CallMetrics({"shop": SEOUL}, clock=lambda: now_s)
    for sent_at_s in (99.9, 99.1, 99.5, 97.0):
        tally(ended(sent_at_s=sent_at_s))
    tally(ended(sent_at_s=None, result="unreachable"))
    assert summary(tally) == {"ok": 4, "unreachable": 1, "worst": 3}
    now_s += KEEP_S + 1
    assert summary(tally)["worst"] == 0


def test_remembered_calls_are_bounded() -> None:
    """However many calls there are in a minute, no more than a bound is remembered."""
    tally = CallMetrics({"shop": SEOUL}, clock=lambda: 1.0)
    end = ended(sent_at_s=1.0)
    for _ in range(KEEP_MAX + 10):
        tally(end)
    assert KEEP_MAX // 2 <= summary(tally)["worst"] <= KEEP_MAX


def test_each_error_has_a_word_from_a_closed_set() -> None:
    """Every code's kind, and every failure without a code, is one of the results."""
    errors = {
        UpstreamTimeout("", app="a"): "timeout",
        UpstreamUnreachable("", app="a"): "unreachable",
        UpstreamBroken("", app="a"): "broken",
        UpstreamHTTPStatus(500, app="a"): "http_status",
        RuntimeError(): "failed",
        UpstreamRefused(app="a", code=123_456, text="", advice=""): CodeKind.UNKNOWN,
    }
    assert {error: result_of(error) for error in errors} == errors
    assert result_of(None) == "ok"
    assert len(set(RESULTS)) == len(RESULTS)
    assert {*errors.values(), *CodeKind, "ok"} == set(RESULTS)


def test_each_end_of_a_turn_is_counted_separately() -> None:
    """Each answer to `begin` that ends a turn is counted as a word of its own, beside turns given back and lost."""
    answers = (Begun(), Joined(lease_in_ms=1), AlreadyStored(head=b""), Paused(), Lapsed())
    assert [*(END_OF[type(answer)] for answer in answers), "returned", "lost"] == list(TURN_ENDS)


def test_redis_calls_are_timed_and_their_failures_counted_by_reason() -> None:
    """A failed call counts for the time as well as for its reason."""
    tally = StoreMetrics()
    tally("get", 0.002, None)
    tally("get", 0.25, "timed out")
    samples = [sample for family in tally.collect() for sample in family.samples]
    assert [s.value for s in samples if s.name == "taskgate_redis_call_duration_seconds_count"] == [2]
    failed = {(s.labels["op"], s.labels["detail"]): s.value for s in samples if s.name == "taskgate_redis_errors_total"}
    assert {key: count for key, count in failed.items() if count} == {("get", "timed out"): 1}


def test_series_that_alerts_use_exist_from_the_start() -> None:
    """Each result, each kind of Redis's errors and 500 are series from the start: their first one is an increase."""
    apps = {"shop": SEOUL}
    metrics = Metrics(version="1", apps=apps, callers=tuple, clock=lambda: 1.0)
    scrape = read("text/plain", generate_latest(metrics.registry).decode())
    results = scrape.of("taskgate_upstream_calls_total", app="shop", region="seoul")
    assert {(s.labels["result"], s.value) for s in results} == {(result, 0) for result in RESULTS}
    errors = scrape.of("taskgate_redis_errors_total")
    assert {s.labels["detail"] for s in errors} == set(get_args(StoreDetail))
    assert [s.value for s in scrape.of("taskgate_requests_total", route="/tasks", status="500")] == [0]


async def test_a_blocked_loop_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A computation of 50 ms in the event loop shows as a lag of about that long; a loop that is idle shows none."""
    monkeypatch.setattr(lag, "EVERY_S", 0.005)
    measured = LoopLag()
    async with measured.measured():
        await asyncio.sleep(0.02)
        time.sleep(0.05)  # noqa: ASYNC251 - to hold the loop up is the point
        await asyncio.sleep(0.02)
        assert 0.04 < measured.seconds.total < 5
    ends_at = measured.seconds.count
    await asyncio.sleep(0.02)
    assert measured.seconds.count == ends_at
