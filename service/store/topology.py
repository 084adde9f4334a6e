"""Which server holds a key, and where to listen: for one server, Sentinel and Cluster."""

from typing import Protocol

from service.store.connection_factory import Address
from service.store.node import Node


class Topology(Protocol):
    """Knows the servers. Raises StoreUnavailable where they can't be found."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All servers known, for counting."""
        ...

    async def node_for(self, key: str) -> Node:
        """The server that holds a key and takes writes."""
        ...

    async def after_read_only(self, key: str, node: Node) -> Node:
        """The server to write to now that `node` has said to be a replica: maybe the same."""
        ...

    def moved(self, key: str, address: Address) -> Node:
        """The server that another has named as the holder of a key."""
        ...

    def at(self, address: Address) -> Node:
        """The server at an address."""
        ...

    async def listening_address(self, *, avoid: Address | None) -> Address:
        """Where to listen; not at `avoid` where there is a choice."""
        ...

    def covers(self, address: Address) -> bool:
        """Whether whoever listens there still hears everything that is published."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class SingleTopology:
    """One server at a fixed address."""

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
