"""Refusals: which are reported, which stop calls, and what ends a stop."""

import asyncio
import json
from email.utils import formatdate
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from service.model.errors import CallsStopped, QueryRefused, Throttled, UpstreamRefused
from service.upstream.verdicts import RetryVerdict, verdict
from tests.integration.upstream.bench import Bench, pages, refusals


def query_of(request: bytes) -> dict[str, list[str]]:
    return parse_qs(urlsplit(request.split(b" ")[1].decode()).query)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (60007, Throttled),
        (90104, QueryRefused),
        (90105, UpstreamRefused),
        (60013, UpstreamRefused),
        (1, UpstreamRefused),
    ],
)
async def test_a_refusal_that_is_not_our_fault_does_not_stop_calls(
    bench: Bench, code: int, kind: type[UpstreamRefused]
) -> None:
    """A refusal that is not about us is reported with code, text and advice; the next call is made."""
    bench.upstream.scene = refusals(code)
    with pytest.raises(UpstreamRefused) as caught:
        await bench.fetch()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.text) == (code, "their words")
    assert caught.value.advice
    assert bench.client.stopped(bench.app) is None
    assert (await bench.fetch()).total == 1


@pytest.mark.parametrize("code", [60002, 60021, 70009, 70020])
async def test_faults_of_ours_stop_calls_for_the_configured_time(bench: Bench, code: int) -> None:
    """Our own faults stop the app's calls for the configured time; meanwhile no call is made, no slot requested."""
    bench.use(stopped_s=40.0)
    bench.upstream.scene = refusals(code)
    with pytest.raises(CallsStopped) as caught:
        await bench.fetch()
    assert (caught.value.code, caught.value.stopped_for_s, caught.value.sent) == (code, 40.0, True)
    bench.steady_s += 39.0
    stopped = bench.client.stopped(bench.app)
    assert stopped is not None
    assert (stopped.code, stopped.stopped_for_s, stopped.sent) == (code, 1.0, False)
    with pytest.raises(CallsStopped) as caught:
        await bench.fetch()
    assert not caught.value.sent
    assert bench.begun == len(bench.upstream.requests) == 1
    bench.steady_s += 1.0
    assert bench.client.stopped(bench.app) is None
    assert (await bench.fetch()).total == 1


async def test_stop_ends_with_a_new_secret(bench: Bench) -> None:
    """A secret's file that changes lifts the stop within a second, and the next call is signed with it."""
    bench.upstream.scene = refusals(70009)
    with pytest.raises(CallsStopped):
        await bench.fetch()
    bench.secret_file.write_text("another secret, longer than before".replace(" ", "-"))
    bench.wall_s += 1.0
    assert bench.client.stopped(bench.app) is None
    assert (await bench.fetch()).total == 1
    first, second = (query_of(request)["usersig"] for request in bench.upstream.requests)
    assert first != second


async def test_pause_for_bad_signatures_outlasts_a_new_secret(bench: Bench) -> None:
    """After too many bad signatures no call is made for 60 seconds, whatever the secret and the setting say."""
    bench.use(stopped_s=1.0)
    bench.upstream.scene = refusals(70050)
    with pytest.raises(CallsStopped):
        await bench.fetch()
    bench.secret_file.write_text("another-secret")
    bench.wall_s += 2.0
    bench.steady_s += 59.0
    assert bench.client.stopped(bench.app) is not None
    bench.steady_s += 1.0
    assert bench.client.stopped(bench.app) is None


@pytest.mark.parametrize("code", [70001, 70052])
async def test_a_signature_refused_as_expired_is_replaced(bench: Bench, code: int) -> None:
    """A signature refused as expired is not used again; the next call gets a new one."""
    bench.upstream.scene = refusals(code)
    with pytest.raises(UpstreamRefused) as caught:
        await bench.fetch()
    assert verdict(caught.value) is RetryVerdict.ONCE_MORE
    bench.wall_s += 1.0
    assert (await bench.fetch()).total == 1
    first, second = (query_of(request)["usersig"] for request in bench.upstream.requests)
    assert first != second


@pytest.mark.parametrize(
    ("ahead_s", "text"),
    [(600, "10 minutes ahead of"), (-300, "5 minutes behind"), (3600 * 8, "8 hours ahead of"), (20, None)],
)
@pytest.mark.parametrize("code", [70001, 70003, 70009, 70050])
async def test_a_skewed_clock_is_mentioned(bench: Bench, code: int, ahead_s: int, text: str | None) -> None:
    """If a signature is refused and the upstream's Date is minutes away from this machine's clock, the text says so."""
    date = formatdate(bench.wall_s - ahead_s, usegmt=True)
    body = json.dumps({"ActionStatus": "FAIL", "ErrorCode": code, "ErrorInfo": "no"}).encode()
    bench.upstream.scene = pages(body, headers=f"Date: {date}\r\n")
    with capture_logs() as logs, pytest.raises(UpstreamRefused) as caught:
        await bench.fetch()
    assert ("This machine's clock is" in caught.value.advice) is (text is not None)
    assert text is None or text in caught.value.advice
    assert bench.client.skew_s == {"shop": ahead_s}
    assert [log["ahead_s"] for log in logs if log["event"] == "upstream.clock_skew"] == ([ahead_s] if text else [])


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 2024 00:00:00"])
async def test_without_a_date_clocks_are_not_mentioned(bench: Bench, date: str) -> None:
    """Without a Date nothing is said about clocks, and refusals that are not about signatures never mention them."""
    bench.upstream.scene = pages(headers=f"Date: {date}\r\n" if date else "")
    assert (await bench.fetch()).total == 1
    assert bench.client.skew_s == {}
    body = json.dumps({"ActionStatus": "FAIL", "ErrorCode": 60007, "ErrorInfo": "no"}).encode()
    bench.upstream.scene = pages(body, headers="Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n")
    await bench.client.aclose()
    bench.use()
    with pytest.raises(UpstreamRefused) as caught:
        await bench.fetch()
    assert "clock" not in caught.value.advice


async def test_repeatedly_expired_signatures_stop_calls(bench: Bench) -> None:
    """A new signature that is refused as expired, too, stops calls; after a success the count restarts."""
    bench.upstream.scene = refusals(70001, 0, 70001, 70001)
    for expected in (UpstreamRefused, None, UpstreamRefused, CallsStopped):
        if expected is None:
            await bench.fetch()
            continue
        with pytest.raises(UpstreamRefused) as caught:
            await bench.fetch()
        assert type(caught.value) is expected
    assert bench.client.stopped(bench.app) is not None


async def test_expired_while_others_are_under_way(bench: Bench) -> None:
    """Several calls refused with the same expired signature don't stop calls: none of them had a new signature."""
    bench.upstream.scene = refusals(70001, 70001, 70001)
    together = asyncio.Barrier(3)

    async def before_send() -> None:
        await together.wait()

    outcomes = await asyncio.gather(*(bench.fetch(before_send) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UpstreamRefused] * 3
    assert (await bench.fetch()).total == 1
