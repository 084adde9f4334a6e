"""Ports that no other part of the tests takes between the moment they are found free and the moment they are used."""

import os
import random
import socket
from collections.abc import Iterator
from itertools import chain, cycle

_FIRST = 10_000
"""The system gives out ports above 32,767 for connections; a node of a cluster also listens 10,000 above its own."""
_EACH = 600


def _own() -> Iterator[int]:
    """The ports of this process, again and again: those of its worker of pytest-xdist, or of none."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9")[2:]) % 10
    first = _FIRST + worker * _EACH
    begin = random.randrange(first, first + _EACH)
    return cycle(chain(range(begin, first + _EACH), range(first, begin)))


_ports = _own()


def free_port() -> int:
    """A TCP port of the loopback that nobody holds now, nor was given before for as long as possible."""
    for _ in range(_EACH):
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"none of {_EACH} ports is free")
