"""A cluster's slots and their masters, learned from CLUSTER SLOTS and corrected by redirects."""

import random
from bisect import bisect_right
from collections.abc import Callable

from redis.crc import key_slot
from redis.exceptions import ResponseError

from service.model.errors import StoreDetail, StoreUnavailable
from service.store.connection_factory import Address
from service.store.node import Node
from service.store.topology_refresher import TopologyRefresher

Span = tuple[int, int, Address]


class ClusterTopology:
    """The masters of all slots. Refreshed every five seconds while in use, and at once if a master fails."""

    def __init__(self, seeds: tuple[Address, ...], *, connect: Callable[[Address], Node]) -> None:
        self._seeds = seeds
        self._connect = connect
        self._spans: tuple[Span, ...] = ()
        self._corrections: dict[int, Address] = {}
        self._nodes: dict[Address, Node] = {}
        self._refresher = TopologyRefresher(self._look, every_s=5.0)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(self._nodes.values())

    async def node_for(self, key: str) -> Node:
        if not self._spans:
            await self._refresher.look()
        slot = key_slot(key.encode())
        address = self._corrections.get(slot) or self._holder(slot)
        node = self.at(address)
        self._refresher.refresh_soon(amiss=not node.is_trusted)
        return node

    async def after_read_only(self, key: str, node: Node) -> Node:
        await self._refresher.look()
        return await self.node_for(key)

    def moved(self, key: str, address: Address) -> Node:
        self._corrections[key_slot(key.encode())] = address
        self._refresher.refresh_soon(amiss=True)
        return self.at(address)

    def at(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = self._connect(address)
        return node

    async def listening_address(self, *, avoid: Address | None) -> Address:
        if not self._spans:
            await self._refresher.look()
        self._refresher.refresh_soon(amiss=avoid is not None)
        masters = {address for _, _, address in self._spans}
        trusted = [address for address in masters if address != avoid and self.at(address).is_trusted]
        return random.choice(trusted or sorted(masters, key=repr))  # noqa: S311 - for load balancing, not security

    def covers(self, address: Address) -> bool:
        self._refresher.refresh_soon(amiss=False)
        return any(address == holder for _, _, holder in self._spans)

    async def aclose(self) -> None:
        await self._refresher.aclose()
        for node in self.nodes:
            await node.aclose()

    def _holder(self, slot: int) -> Address:
        index = bisect_right(self._spans, slot, key=lambda span: span[0]) - 1
        if index < 0 or slot > self._spans[index][1]:
            self._refresher.refresh_soon(amiss=True)
            raise StoreUnavailable("cluster down")
        return self._spans[index][2]

    async def _look(self) -> None:
        detail: StoreDetail = "unreachable"
        for address in self._candidates():
            try:
                answer = await self.at(address).call("CLUSTER", "SLOTS", again=True)
            except StoreUnavailable as exc:
                detail = exc.detail
                continue
            except ResponseError:
                detail = "refused"
                continue
            if spans := _spans(answer, asked=address):
                await self._adopt(spans)
                return
            detail = "cluster down"
        raise StoreUnavailable(detail)

    def _candidates(self) -> list[Address]:
        """Return all nodes that may know the slots: trusted ones first, otherwise in random order."""
        addresses = list({*self._nodes, *self._seeds})
        random.shuffle(addresses)
        return sorted(addresses, key=lambda address: not self.at(address).is_trusted)

    async def _adopt(self, spans: tuple[Span, ...]) -> None:
        self._spans = spans
        self._corrections.clear()
        current = {address for _, _, address in spans} | set(self._seeds)
        for address in [known for known in self._nodes if known not in current]:
            await self._nodes.pop(address).aclose()


def _spans(answer: object, *, asked: Address) -> tuple[Span, ...]:
    """Parse CLUSTER SLOTS: rows of first slot, last slot, master, replicas. An empty host means the one queried."""
    if not isinstance(answer, list):
        return ()
    rows = ((int(first), int(last), master) for first, last, master, *_ in answer)
    spans = (
        (first, last, Address(host=master[0].decode() if master[0] else asked.host, port=int(master[1])))
        for first, last, master in rows
    )
    return tuple(sorted(spans, key=lambda span: span[0]))
