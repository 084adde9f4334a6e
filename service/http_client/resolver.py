"""Host names to addresses: one look-up in flight for each name, and its last good answer kept."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable

import msgspec

from service.http_client.errors import NotConnected
from service.http_client.threads import in_own_thread

KEEP_S = 3600.0
"""For how long a good answer serves while look-ups fail or hang."""
PATIENCE_S = 0.5
"""How long a look-up may take where an earlier answer is there."""
ADDRESSES_MAX = 4

Lookup = Callable[[str, int], tuple[str, ...]]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    addresses: tuple[str, ...]
    at_s: float


class Resolver:
    """Resolves names through the system. A name that takes long delays nobody who asks for another one.

    A look-up can't be ended, so each has a thread of its own, and there is one for each name at most. `clock` is
    monotonic. As many entries as there are hosts in the configuration.
    """

    def __init__(self, *, lookup: Lookup | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._lookup = lookup or _addresses
        self._clock = clock
        self._known: dict[str, _Answer] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def resolve(self, host: str, port: int, *, until_s: float) -> tuple[str, ...]:
        """Return the host's addresses, by `until_s` (loop time). Raises NotConnected."""
        if _is_address(host):
            return (host,)
        loop = asyncio.get_running_loop()
        task = self._looking.get(host)
        if task is None:
            task = self._looking[host] = asyncio.create_task(self._look_up(host, port))
            task.add_done_callback(_seen)
        known = self._known.get(host)
        if known is not None and self._clock() - known.at_s > KEEP_S:
            known = None
        patience_s = max(until_s - loop.time(), 0.0)
        done, _ = await asyncio.wait({task}, timeout=patience_s if known is None else min(PATIENCE_S, patience_s))
        error = task.exception() if done and not task.cancelled() else None
        found = self._known.get(host) if done and error is None else known
        if found is not None:
            return found.addresses
        if error is not None:
            raise NotConnected("the host name could not be resolved")
        raise NotConnected("the host name could not be resolved in time")

    async def aclose(self) -> None:
        """Give up all look-ups."""
        for task in tuple(self._looking.values()):
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _look_up(self, host: str, port: int) -> None:
        try:
            addresses = await in_own_thread(self._lookup, host, port)
            self._known[host] = _Answer(addresses=addresses, at_s=self._clock())
        finally:
            del self._looking[host]


def _addresses(host: str, port: int) -> tuple[str, ...]:
    """Ask the system. Raises OSError, or UnicodeError for a name that can't be one."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))[:ADDRESSES_MAX]


def _seen(task: asyncio.Task[None]) -> None:
    """Take note of a failure that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
