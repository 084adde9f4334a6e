"""The master that Sentinel names, followed through failovers."""

from collections.abc import Callable

from redis.exceptions import ResponseError

from service.model.errors import StoreDetail, StoreUnavailable
from service.store.connection_factory import Address
from service.store.node import Node
from service.store.topology_refresher import TopologyRefresher


class SentinelTopology:
    """One master at a time. Sentinel is queried every second while in use, and at once if the master fails."""

    def __init__(self, sentinels: tuple[Node, ...], *, master: str, connect: Callable[[Address], Node]) -> None:
        self._sentinels = list(sentinels)
        self._name = master
        self._connect = connect
        self._master: Node | None = None
        self._refresher = TopologyRefresher(self._look, every_s=1.0)

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*self._sentinels, *([self._master] if self._master else []))

    async def node_for(self, key: str) -> Node:
        return await self._known()

    async def after_read_only(self, key: str, node: Node) -> Node:
        await self._refresher.look()
        return await self._known()

    def moved(self, key: str, address: Address) -> Node:
        return self.at(address)

    def at(self, address: Address) -> Node:
        if self._master is None:
            raise StoreUnavailable("unreachable")
        return self._master

    async def listening_address(self, *, avoid: Address | None) -> Address:
        return (await self._known()).address

    def covers(self, address: Address) -> bool:
        if self._master is None:
            return False
        self._refresher.refresh_soon(amiss=not self._master.is_trusted)
        return self._master.address == address

    async def aclose(self) -> None:
        await self._refresher.aclose()
        for node in self.nodes:
            await node.aclose()

    async def _known(self) -> Node:
        if self._master is None:
            await self._refresher.look()
        else:
            self._refresher.refresh_soon(amiss=not self._master.is_trusted)
        if self._master is None:
            raise StoreUnavailable("unreachable")
        return self._master

    async def _look(self) -> None:
        detail: StoreDetail = "unreachable"
        for sentinel in tuple(self._sentinels):
            try:
                answer = await sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name, again=True)
            except StoreUnavailable as exc:
                detail = exc.detail
                continue
            except ResponseError:
                detail = "refused"
                continue
            if isinstance(answer, list) and len(answer) == 2:
                self._sentinels.remove(sentinel)
                self._sentinels.insert(0, sentinel)
                await self._adopt(Address(host=answer[0].decode(), port=int(answer[1])))
                return
        raise StoreUnavailable(detail)

    async def _adopt(self, address: Address) -> None:
        old = self._master
        if old is None or old.address != address:
            self._master = self._connect(address)
            if old:
                await old.aclose()
