"""Ports that no other test takes after they were found free and before they are used."""

import atexit
import random
import socket
from collections.abc import Iterator
from functools import cache
from itertools import chain, cycle

_FIRST, _LAST = 10_000, 32_200
"""The system gives out ports above 32,767 for connections."""
_PORTS_EACH = 600


@cache
def _own() -> Iterator[int]:
    """Claim a range of ports for this process: it holds the first one, and cycles through the others."""
    for first in range(_FIRST, _LAST, _PORTS_EACH):
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", first))
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        begin = random.randrange(first + 1, first + _PORTS_EACH)
        return cycle(chain(range(begin, first + _PORTS_EACH), range(first + 1, begin)))
    raise RuntimeError("other processes have claimed all ranges of ports")


def free_port() -> int:
    """Return a free TCP port of the loopback, the one returned least recently."""
    for _ in range(_PORTS_EACH):
        port = next(_own())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"none of {_PORTS_EACH} ports is free")
