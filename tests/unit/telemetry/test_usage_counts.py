"""What is counted of requests for the ledgers."""

import asyncio
from collections import Counter

from service.telemetry.usage import ENTER_S, UsageCounts
from service.web.trail import Observation


class Book:
    """A ledger's counting."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.calls = 0

    def count(self, caller: str, column: str, number: int) -> None:
        """Add."""
        self.counts[caller, column] += number
        self.calls += 1


def ended(
    outcome: str | None = "hit",
    *,
    caller: str | None = "a",
    app: str | None = "shop",
    route: str = "/tasks",
    waited_s: float = 0.0,
) -> Observation:
    """A request that has ended."""
    return Observation(
        request_id="x",
        method="GET",
        route=route,
        status=200,
        caller=caller,
        app=app,
        outcome=outcome,
        waited_s=waited_s,
        upstream_s=0.0,
        duration_s=0.001,
        answer_bytes=1,
    )


async def test_each_outcome_has_its_column() -> None:
    """All are requests; hits, stale answers, refusals and waits besides; fetches and joins the gateway counts."""
    book = Book()
    usage = UsageCounts({"shop": book.count})
    for seen in (
        ended("hit"),
        ended("hit"),
        ended("stale"),
        ended("fetched", waited_s=0.2),
        ended("joined", waited_s=0.1),
        ended("wait-too-long"),
        ended("line-full", caller="b"),
        ended("upstream-timeout"),
        ended("bad-request"),
        ended(None),
    ):
        usage(seen)
    usage.close()
    assert book.counts == {
        ("a", "requests"): 9,
        ("a", "hits"): 2,
        ("a", "stale"): 1,
        ("a", "waits"): 2,
        ("a", "refusals"): 1,
        ("b", "requests"): 1,
        ("b", "refusals"): 1,
    }


async def test_others_are_left() -> None:
    """Neither other routes, nor unknown callers, nor apps without a ledger are counted."""
    book = Book()
    usage = UsageCounts({"shop": book.count})
    for seen in (ended(route="/budget"), ended(caller=None), ended(app=None), ended(app="other")):
        usage(seen)
    usage.close()
    assert book.counts == {}


async def test_counts_are_entered_together_and_soon() -> None:
    """A thousand requests touch the ledger a few times, without anybody asking; the next ones again."""
    book = Book()
    usage = UsageCounts({"shop": book.count})
    for rounds in (1, 2):
        for _ in range(1000):
            usage(ended())
        async with asyncio.timeout(20 * ENTER_S):
            while book.counts["a", "hits"] < 1000 * rounds:
                await asyncio.sleep(0.01)
        assert book.calls == 2 * rounds
