"""What connections hold in this process, and which are closed when it is too much."""

from service.server.buffered_bytes import SHRUNK_BYTES, BufferedBytes


class Holding:
    """A connection that records why it was closed."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def abort(self, reason: str) -> None:
        """Close it."""
        self.reasons.append(reason)


def test_the_longest_holding_connection_is_closed_first() -> None:
    """Beyond the bound as many are closed as necessary, in the order in which they began to hold some."""
    held = BufferedBytes(100)
    first, second, third, fourth = (Holding() for _ in range(4))
    for each in (first, second, third):
        held.set(each, 30)
    held.set(second, 40)
    held.set(first, 0)
    held.set(first, 20)
    assert (held.total, first.reasons, second.reasons) == (90, [], [])
    held.set(fourth, 60)
    assert [each.reasons for each in (first, second, third, fourth)] == [[], ["unsent"], ["unsent"], []]
    assert held.total == 80


def test_a_connection_that_exceeds_the_bound_alone_is_closed() -> None:
    """A connection that exceeds the bound by itself is closed itself."""
    held = BufferedBytes(100)
    greedy = Holding()
    held.set(greedy, 101)
    assert (greedy.reasons, held.total) == (["unsent"], 0)


def test_shrinking_is_reported_once() -> None:
    """Releasing many bytes is reported once; releasing few is not reported."""
    held = BufferedBytes(10 * SHRUNK_BYTES)
    one = Holding()
    held.set(one, SHRUNK_BYTES - 1)
    held.set(one, 0)
    assert not held.has_shrunk()
    held.set(one, SHRUNK_BYTES)
    assert not held.has_shrunk()
    held.set(one, 0)
    assert held.has_shrunk()
    assert not held.has_shrunk()
