"""The limit on arrivals, and the worst window, against brute force."""

from hypothesis import example, given
from hypothesis import strategies as st

from service.model.budgets import worst_window
from service.sandbox.arrivals import KEPT, Arrivals

TIMES = st.lists(st.integers(0, 300).map(lambda tenth: tenth * 10.0), max_size=60)


@example(arrivals_ms=[0.0, 10.0], window_ms=10.0)
@example(arrivals_ms=[10.0, 0.0, 10.0], window_ms=1.0)
@given(arrivals_ms=TIMES, window_ms=st.sampled_from([1.0, 10.0, 35.0, 1000.0]))
def test_worst_window_is_what_counting_finds(arrivals_ms: list[float], window_ms: float) -> None:
    """The worst window equals the largest count over all half-open windows that begin at an arrival."""
    counted = max(
        (sum(start <= other < start + window_ms for other in arrivals_ms) for start in arrivals_ms), default=0
    )
    assert worst_window(arrivals_ms, window_ms) == counted


@given(arrivals_ms=TIMES.map(sorted), calls=st.integers(1, 6))
def test_arrival_is_refused_just_when_its_window_is_overfull(arrivals_ms: list[float], calls: int) -> None:
    """An arrival is refused exactly when more than `calls`, refused ones too, lie in the window that it ends."""
    arrivals = Arrivals(calls=calls, window_ms=1000)
    for position, at_ms in enumerate(arrivals_ms):
        inside = sum(at_ms - other < 1000 for other in arrivals_ms[: position + 1])
        assert arrivals.arrive(at_ms) == (inside <= calls)
    assert arrivals.refused == 0 or arrivals.worst() > calls
    assert arrivals.count == len(arrivals_ms)


def test_a_window_later_the_limit_is_free_again() -> None:
    """Five calls pass, the sixth is refused, and the call one window after the fifth passes only with room for it."""
    arrivals = Arrivals(calls=5, window_ms=1000)
    assert [arrivals.arrive(at_ms) for at_ms in (0, 1, 2, 3, 4, 5)] == [True] * 5 + [False]
    assert arrivals.arrive(1000.9) is False  # 1, 2, 3, 4, 5 and itself
    assert arrivals.arrive(3000) is True


def test_kept_arrivals_are_bounded() -> None:
    """Only the last 100,000 arrivals are kept, and counting continues."""
    arrivals = Arrivals(calls=1, window_ms=1)
    for number in range(KEPT + 5):
        arrivals.arrive(float(number))
    assert arrivals.count == KEPT + 5
    assert len(arrivals.kept_ms) == KEPT
    assert arrivals.kept_ms[0] == 5.0
