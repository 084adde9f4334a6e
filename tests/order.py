"""The order in which several workers run the tests: those that measure time, which mostly wait, in parallel with the
others, which mostly compute.

pytest-xdist's `worksteal` gives each worker an equal part of the list, and gives a worker that has finished its part
the end of another's. So all parts but one start with tests that measure time, and all end with other tests.
"""

from collections.abc import Sequence
from itertools import groupby

import pytest

MEASURING = {"clients", "integration", "scenes"}
"""The directories of tests with real servers or several processes, and their time-outs."""


def ordered(items: Sequence[pytest.Item], *, workers: int) -> list[pytest.Item]:
    """Return the tests in the order for this number of workers."""
    measuring = [item for item in items if measures_time(item)]
    others = [item for item in items if not measures_time(item)]
    if workers == 1 or not others:
        return list(items)
    hands = [*_dealt(measuring, workers - 1), []]
    made: list[pytest.Item] = []
    for worker, hand in enumerate(hands):
        size = (len(items) - len(made)) // (workers - worker)
        count = max(size - len(hand), 0)
        made += [*hand, *others[:count]]
        del others[:count]
    return made


def _dealt(items: Sequence[pytest.Item], hands: int) -> list[list[pytest.Item]]:
    """Deal the tests out, those of a file that share their servers in one piece."""
    dealt: list[list[pytest.Item]] = [[] for _ in range(hands)]
    pieces = [list(piece) for _, piece in groupby(items, key=_shared)]
    for number, piece in enumerate(pieces):
        dealt[number % hands] += piece
    return dealt


def _shared(item: pytest.Item) -> str:
    """Return the file of a test that shares its servers with others, or the name of another test."""
    is_shared = "own_valkey" not in getattr(item, "fixturenames", ())
    return str(item.path) if is_shared else item.nodeid


def measures_time(item: pytest.Item) -> bool:
    """Whether a test has servers or processes of its own, and their timing."""
    return not MEASURING.isdisjoint(item.path.parts)
