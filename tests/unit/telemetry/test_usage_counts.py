"""What is counted of requests for the ledgers."""

from collections import Counter

from service.telemetry.usage import UsageCounts
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
        ended_at_s=0.0,
        answer_bytes=1,
    )


def test_each_outcome_has_its_column() -> None:
    """All are requests; hits, stale answers, refusals and waits besides; fetches and joins the gateway counts."""
    book = Book()
    usage = UsageCounts({"shop": book.count})
    usage(
        (
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
        )
    )
    assert book.counts == {
        ("a", "requests"): 9,
        ("a", "hits"): 2,
        ("a", "stale"): 1,
        ("a", "waits"): 2,
        ("a", "refusals"): 1,
        ("b", "requests"): 1,
        ("b", "refusals"): 1,
    }


def test_others_are_left() -> None:
    """Neither other routes, nor unknown callers, nor apps without a ledger are counted."""
    book = Book()
    usage = UsageCounts({"shop": book.count})
    usage((ended(route="/budget"), ended(caller=None), ended(app=None), ended(app="other")))
    assert book.counts == {}


def test_sums_are_entered() -> None:
    """A thousand requests of a kind touch the ledger once for each column."""
    book = Book()
    UsageCounts({"shop": book.count})([ended()] * 1000)
    assert book.counts == {("a", "requests"): 1000, ("a", "hits"): 1000}
    assert book.calls == 2
