"""When a failed server is called again, on given times."""

from service.store.breaker import Breaker


def test_calls_pass_before_the_first_failure() -> None:
    """Nothing is refused before the first failure."""
    breaker = Breaker()
    assert breaker.refusal(0.0) is None
    assert breaker.admitted(0.0) == breaker


def test_calls_are_refused_for_a_while_after_a_failure() -> None:
    """Calls are refused, with the reason of the failure, until the pause is over."""
    breaker = Breaker(rest_s=0.2).failed(10.0, "timed out", probe=False)
    assert breaker.refusal(10.0) == "timed out"
    assert breaker.refusal(10.199) == "timed out"
    assert breaker.refusal(10.2) is None


def test_one_call_probes_at_a_time() -> None:
    """While the probe is in progress all others are refused, for a bounded time."""
    breaker = Breaker(rest_s=0.2, probe_s=1.0).failed(10.0, "unreachable", probe=False).admitted(10.2)
    assert breaker.refusal(10.3) == "unreachable"
    assert breaker.refusal(11.2) is None


def test_a_failed_probe_restarts_the_pause() -> None:
    """After a failed probe the pause counts from its end."""
    breaker = Breaker(rest_s=0.2).failed(10.0, "unreachable", probe=False).admitted(10.2)
    breaker = breaker.failed(10.4, "timed out", probe=True)
    assert breaker.refusal(10.59) == "timed out"
    assert breaker.refusal(10.6) is None


def test_late_failures_prolong_nothing() -> None:
    """Calls that were in progress at the first failure may fail later without effect."""
    breaker = Breaker(rest_s=0.2).failed(10.0, "timed out", probe=False)
    assert breaker.failed(10.15, "timed out", probe=False) == breaker


def test_any_answer_closes_the_breaker() -> None:
    """After an answer, even to a call from before the failure, all calls are allowed."""
    breaker = Breaker().failed(10.0, "timed out", probe=False).answered()
    assert breaker.refusal(10.0) is None
    assert breaker.detail is None
