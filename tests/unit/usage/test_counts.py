"""What is counted of requests for the usage stores."""

from collections import Counter

from service.model.calls import CallKind
from service.usage.counts import UsageObserver
from tests.observations import observed


class Book:
    """A fake usage store."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.calls = 0

    def count(self, caller: str, column: str, number: int) -> None:
        """Add."""
        self.counts[caller, column] += number
        self.calls += 1


def test_each_outcome_has_its_column() -> None:
    """Each outcome counts as a request, and also as a hit, stale answer, refusal or wait; fetches and joins are
    counted by the gateway."""
    book = Book()
    usage = UsageObserver({("shop", CallKind.LIST): book.count})
    usage(
        (
            observed(outcome="hit"),
            observed(outcome="hit"),
            observed(outcome="stale"),
            observed(outcome="fetched", waited_s=0.2),
            observed(outcome="joined", waited_s=0.1),
            observed(outcome="wait-too-long"),
            observed(outcome="line-full", caller="b"),
            observed(outcome="upstream-timeout"),
            observed(outcome="bad-request"),
            observed(outcome=None),
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


def test_other_requests_are_not_counted() -> None:
    """Neither other routes, nor unknown callers, nor apps without a usage_store are counted."""
    book = Book()
    usage = UsageObserver({("shop", CallKind.LIST): book.count})
    usage((observed(route="/budget"), observed(caller=None), observed(app=None), observed(app="other")))
    assert book.counts == {}


def test_each_kind_of_call_has_its_own_store() -> None:
    """Requests for single tasks are counted apart from those for lists."""
    lists, tasks = Book(), Book()
    usage = UsageObserver({("shop", CallKind.LIST): lists.count, ("shop", CallKind.GET): tasks.count})
    usage((observed(), observed(route="/tasks/{id}"), observed(route="/tasks/{id}", outcome="unknown-task")))
    assert lists.counts == {("a", "requests"): 1, ("a", "hits"): 1}
    assert tasks.counts == {("a", "requests"): 2, ("a", "hits"): 1}


def test_a_batch_is_counted_as_sums() -> None:
    """A thousand requests of one kind cost the usage store one call per column."""
    book = Book()
    UsageObserver({("shop", CallKind.LIST): book.count})([observed()] * 1000)
    assert book.counts == {("a", "requests"): 1000, ("a", "hits"): 1000}
    assert book.calls == 2
