"""The address of a request's client: the peer's, or behind trusted proxies the one that they forward."""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from service.observe.request import HeaderFields
from service.server.asgi import Client

HOPS_MAX = 16
"""How many forwarded addresses are read, from the last one backwards."""

_PEERS = 1024
"""How many peers are remembered as trusted or not."""


class ClientAddresses:
    """Determines clients' addresses, for logs and traces only: they never affect access.

    `X-Forwarded-For` counts only as far as it was written by one of the `trusted` networks, in CIDR notation.
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        """Raise ValueError for a text that is no network."""
        self._trusted = tuple(ipaddress.ip_network(network) for network in trusted)
        self._is_trusted = lru_cache(maxsize=_PEERS)(self._lies_in_trusted)

    def of(self, peer: Client | None, fields: HeaderFields) -> str | None:
        """Return the client's address; None on a socket that has none."""
        if peer is None:
            return None
        address: str = peer[0]
        if not self._trusted or not self._is_trusted(address):
            return address
        hops = fields.get(b"x-forwarded-for", b"").split(b",")
        for hop in hops[: -HOPS_MAX - 1 : -1]:
            if (forwarded := _address(hop.strip().decode("latin-1"))) is None:
                break
            address = str(forwarded)
            if not self._is_trusted(address):
                break
        return address

    def _lies_in_trusted(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._trusted)


PEERS = ClientAddresses()
"""Without trusted proxies: each client's address is its connection's."""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address, IPv4 even if mapped into IPv6; None for any other text, and with a zone, which may be any."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return None if address.scope_id else address.ipv4_mapped or address
    return address
