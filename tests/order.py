"""The order in which several workers run the tests: scenes, which mostly wait, in parallel with the others, which
mostly compute.

pytest-xdist's `worksteal` gives each worker an equal part of the list, and gives a worker that has finished its part
the end of another's. So all parts but two start with scenes, and all end with other tests. A worker that starts with
other tests has a lower priority for its whole life, because scenes measure time.
"""

from collections.abc import Sequence
from itertools import groupby

import pytest

COMPUTING = 2
"""The workers that start with other tests than scenes."""
GIVES_WAY = 5
"""Their niceness: they get a third of the CPU time of a scene that runs at the same time."""


def ordered(items: Sequence[pytest.Item], *, workers: int) -> list[pytest.Item]:
    """Return the tests in the order for this number of workers."""
    scenes = [item for item in items if is_scene(item)]
    others = [item for item in items if not is_scene(item)]
    waiting = workers - COMPUTING
    if waiting < 1 or not others:
        return list(items)
    hands = _dealt(scenes, waiting)
    made: list[pytest.Item] = []
    for worker in range(workers):
        first = hands[worker] if worker < waiting else []
        size = (len(items) - len(made)) // (workers - worker)
        count = max(size - len(first), 0)
        made += [*first, *others[:count]]
        del others[:count]
    return made


def _dealt(scenes: Sequence[pytest.Item], hands: int) -> list[list[pytest.Item]]:
    """Deal the scenes out, those of a file that share their gateways in one piece."""
    dealt: list[list[pytest.Item]] = [[] for _ in range(hands)]
    pieces = [list(piece) for _, piece in groupby(scenes, key=_shared)]
    for number, piece in enumerate(pieces):
        dealt[number % hands] += piece
    return dealt


def _shared(item: pytest.Item) -> str:
    """Return the file of a test that shares its gateways with others, or the name of another test."""
    is_shared = "own_valkey" not in getattr(item, "fixturenames", ())
    return str(item.path) if is_shared else item.nodeid


def is_scene(item: pytest.Item) -> bool:
    """Whether a test is about several whole processes and their timing."""
    return item.get_closest_marker("scene") is not None
