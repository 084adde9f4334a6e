"""Host name resolution: one lookup in flight per name, with its last good answer kept."""

import asyncio
import ipaddress
import socket
import time
from collections.abc import Callable

import msgspec

from service.http_client.errors import NotConnected
from service.http_client.threads import in_own_thread, retrieve_error

KEEP_S = 3600.0
"""How long a good answer is used while lookups fail or hang, in seconds."""
PATIENCE_S = 0.5
"""How long a lookup may take if an earlier answer is available, in seconds."""
ADDRESSES_MAX = 4

LookUpHost = Callable[[str, int], tuple[str, ...]]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    addresses: tuple[str, ...]
    at_s: float


class Resolver:
    """Resolves names through the system. A slow name does not delay the lookup of another.

    A lookup can't be cancelled, so each has its own thread, with at most one per name. The number of entries is bounded
    by the number of hosts in the configuration.
    """

    def __init__(self, *, lookup: LookUpHost | None = None) -> None:
        self._lookup = lookup or look_up
        self._known: dict[str, _Answer] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}

    async def resolve(self, host: str, port: int, *, until_s: float) -> tuple[str, ...]:
        """Return the host's addresses, by `until_s` (loop time). Raise NotConnected."""
        if _is_address(host):
            return (host,)
        loop = asyncio.get_running_loop()
        task = self._looking.get(host)
        if task is None:
            task = self._looking[host] = asyncio.create_task(self._look_up(host, port))
            task.add_done_callback(retrieve_error)
        known = self._known.get(host)
        if known is not None and time.monotonic() - known.at_s > KEEP_S:
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
        """Abandon all lookups."""
        for task in tuple(self._looking.values()):
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _look_up(self, host: str, port: int) -> None:
        try:
            addresses = await in_own_thread(self._lookup, host, port)
            self._known[host] = _Answer(addresses=addresses, at_s=time.monotonic())
        finally:
            del self._looking[host]


def look_up(host: str, port: int) -> tuple[str, ...]:
    """Return the addresses that the system knows. Raise OSError, or UnicodeError for an invalid name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))[:ADDRESSES_MAX]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
