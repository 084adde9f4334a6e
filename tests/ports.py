"""Ports that no other test takes after they were found free and before they are used."""

import os
import random
import socket
from collections.abc import Iterator
from itertools import chain, cycle

_FIRST = 10_000
"""The system gives out ports above 32,767 for connections; a node of a cluster also listens 10,000 above its own."""
PORTS_EACH = 600
PORTS_FIRST_VARIABLE = "TASKGATE_TESTS_FIRST_PORT"


def _own() -> Iterator[int]:
    """Cycles through the ports of this process: from a given one on, or those of its pytest-xdist worker."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw9")[2:]) % 10
    first = int(os.environ.get(PORTS_FIRST_VARIABLE, _FIRST + worker * PORTS_EACH))
    begin = random.randrange(first, first + PORTS_EACH)
    return cycle(chain(range(begin, first + PORTS_EACH), range(first, begin)))


_ports = _own()


def free_port() -> int:
    """Return a free TCP port of the loopback, the one returned least recently."""
    for _ in range(PORTS_EACH):
        port = next(_ports)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"none of {PORTS_EACH} ports is free")
