"""Which server holds a key, and which one to listen to: for single server, Sentinel and Cluster."""

from typing import Protocol

from service.store.connection_factory import Address
from service.store.node import Node


class Topology(Protocol):
    """Knows the servers. Methods raise StoreUnavailable if they cannot be found."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All known servers, for connection counts."""
        ...

    async def node_for(self, key: str) -> Node:
        """Return the server that holds a key and accepts writes."""
        ...

    async def after_read_only(self, key: str, node: Node) -> Node:
        """Return the server to write to after `node` has replied that it is a replica; may be the same one."""
        ...

    def moved(self, key: str, address: Address) -> Node:
        """Return the server that a redirect has named as the holder of a key."""
        ...

    def at(self, address: Address) -> Node:
        """Return the server at an address."""
        ...

    async def listening_address(self, *, avoid: Address | None) -> Address:
        """Return the server to listen to; not `avoid` if there is a choice."""
        ...

    def covers(self, address: Address) -> bool:
        """Return whether a listener there still receives everything that is published."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class SingleTopology:
    """A single server at a fixed address."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (self._node,)

    async def node_for(self, key: str) -> Node:
        return self._node

    async def after_read_only(self, key: str, node: Node) -> Node:
        return node

    def moved(self, key: str, address: Address) -> Node:
        return self._node

    def at(self, address: Address) -> Node:
        return self._node

    async def listening_address(self, *, avoid: Address | None) -> Address:
        return self._node.address

    def covers(self, address: Address) -> bool:
        return address == self._node.address

    async def aclose(self) -> None:
        await self._node.aclose()
