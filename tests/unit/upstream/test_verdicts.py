"""What follows a call that failed without an error code, and how hosts are chosen afterwards."""

import pytest

from service.model.errors import UpstreamBroken, UpstreamError, UpstreamHTTPStatus, UpstreamTimeout, UpstreamUnreachable
from service.upstream.transport import FailedHosts
from service.upstream.verdicts import RetryVerdict, explain, verdict


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (UpstreamTimeout("no answer in time", app="shop"), RetryVerdict.AGAIN),
        (UpstreamUnreachable("refused", app="shop"), RetryVerdict.AGAIN),
        (UpstreamBroken("not JSON", app="shop"), RetryVerdict.AGAIN),
        (UpstreamBroken("not JSON", app="shop", repeats=True), RetryVerdict.NEVER),
        (UpstreamHTTPStatus(503, app="shop"), RetryVerdict.AGAIN),
        (UpstreamHTTPStatus(503, app="shop", retry_after_s=3.0), RetryVerdict.AFTER_PAUSE),
        (UpstreamHTTPStatus(500, app="shop", retry_after_s=3.0), RetryVerdict.AGAIN),
        (UpstreamHTTPStatus(500, app="shop"), RetryVerdict.AGAIN),
        (UpstreamHTTPStatus(502, app="shop"), RetryVerdict.AGAIN),
        (UpstreamHTTPStatus(429, app="shop"), RetryVerdict.AFTER_PAUSE),
        (UpstreamHTTPStatus(404, app="shop"), RetryVerdict.NEVER),
        (UpstreamHTTPStatus(302, app="shop"), RetryVerdict.NEVER),
        (UpstreamHTTPStatus(204, app="shop"), RetryVerdict.NEVER),
        (UpstreamError("something else", app="shop"), RetryVerdict.NEVER),
    ],
)
def test_only_transient_failures_are_retried(error: UpstreamError, expected: RetryVerdict) -> None:
    """Timeouts, 5xx and broken connections are tried again; a whole answer that can't be read is not."""
    assert verdict(error) is expected


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UpstreamTimeout("no answer in time", app="shop"), "no answer in time"),
        (UpstreamUnreachable("the upstream's host name could not be resolved", app="shop"), "resolve"),
        (UpstreamBroken("the answer is not JSON", app="shop"), "base_url"),
        (UpstreamHTTPStatus(502, app="shop"), "later"),
        (UpstreamHTTPStatus(404, app="shop"), "base_url"),
        (UpstreamError("something else", app="shop"), "something else"),
    ],
)
def test_an_explanation_names_what_happened_and_where_to_look(error: UpstreamError, words: str) -> None:
    """The explanation names what happened and where to look."""
    assert words in explain(error)


def test_failed_host_comes_last() -> None:
    """A host that failed comes after the others for half a minute, and is still tried where all have failed."""
    hosts = FailedHosts()
    assert hosts.ordered(("a", "b"), now_s=0.0) == ("a", "b")
    hosts.failed("a", now_s=0.0)
    assert hosts.ordered(("a", "b"), now_s=29.9) == ("b", "a")
    hosts.failed("b", now_s=10.0)
    assert hosts.ordered(("a", "b"), now_s=11.0) == ("a", "b")
    assert hosts.ordered(("a", "b"), now_s=30.0) == ("a", "b")
