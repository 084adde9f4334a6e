"""The store on redis-py: routes each command to its server, and finishes what a cancelled caller began."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar, cast

from redis.exceptions import AskError, MovedError, NoScriptError, ReadOnlyError, ResponseError
from redis.typing import EncodableT

from service.model.errors import StoreDetail, StoreUnavailable
from service.settings import RedisSettings
from service.store.cluster import ClusterTopology
from service.store.connection_factory import Address, ConnectionFactory
from service.store.faults import unavailable
from service.store.interfaces import Handler, OnGap, Script
from service.store.listener import Listener
from service.store.node import Node
from service.store.sentinel import SentinelTopology
from service.store.topology import SingleTopology, Topology

T = TypeVar("T")

Op = Literal["get", "get_many", "put", "publish", "purge", "ping", "script"]
OnCall = Callable[[Op, float, StoreDetail | None], None]
"""Told of every call that has ended: what it was, how long it took in seconds, and why it failed, if so."""

_REDIRECTS = 4
_PURGE_STEP = 500
_PURGE_S = 30.0


class RedisStore:
    """`Store` on Redis or Valkey. Every command is run by a task of the store's own, at most once unless it only reads.

    Opens no connection before the first use. While a server is away, calls to it fail at once, but for one probe every
    0.2 s.
    """

    def __init__(
        self,
        settings: RedisSettings,
        *,
        password: str | None = None,
        sentinel_password: str | None = None,
        on_call: OnCall | None = None,
    ) -> None:
        """`password` wins over one in the URL; Sentinels get only theirs. Raises ValueError for a faulty URL."""
        self._on_call = on_call
        default_port = 26_379 if settings.mode == "sentinel" else 6379
        dialer = ConnectionFactory(settings.url, default_port=default_port, password=password)
        self._topology = _topology(settings, dialer, sentinel_password)
        self._listener = Listener(self._topology, dialer, timeout_s=settings.timeout_s)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def open_connections(self) -> int:
        """How many connections are open, over all servers."""
        return sum(node.open_connections for node in self._topology.nodes) + self._listener.is_listening

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        return cast("bytes | None", await self._owned("get", self._run(key, "GET", key, again=True)))

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values of keys that share one hash tag, in their order."""
        if not keys:
            return []
        return cast("list[bytes | None]", await self._owned("get_many", self._run(keys[0], "MGET", *keys, again=True)))

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        """Keep a value for `ttl_ms`."""
        await self._owned("put", self._run(key, "SET", key, value, "PX", ttl_ms))

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message to all who listen; in a cluster all servers pass it on."""
        await self._owned("publish", self._run(channel, "PUBLISH", channel, message))

    async def delete_matching(self, prefix: str) -> int:
        """Delete all keys that begin with `prefix`, by steps of SCAN, within 30 s."""
        return await self._owned("purge", self._purge(prefix))

    async def ping(self) -> None:
        """Return where Redis answers; in a cluster, one server of it."""
        await self._owned("ping", self._run("", "PING", again=True))

    def script(self, source: str) -> Script:
        """Make a script callable."""
        digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

        async def call(keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
            return await self._owned("script", self._run_script(source, digest, keys, args))

        return call

    def listen(self, channel: str, handler: Handler, *, on_gap: OnGap | None = None) -> None:
        """Call `handler` for each message from now on, and `on_gap` each time that listening has begun."""
        self._listener.add(channel, handler, on_gap)

    async def aclose(self) -> None:
        """End what is under way, which takes at most a few time-outs, and close all connections."""
        self._closed = True
        await self._listener.aclose()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._topology.aclose()

    async def _owned(self, op: Op, work: Coroutine[Any, Any, T]) -> T:
        """Run in a task of our own: redis-py loses or leaks a connection whose task is cancelled."""
        if self._closed:
            work.close()
            raise StoreUnavailable("closed")
        task = asyncio.create_task(
            work if self._on_call is None else _timed(work, op, self._on_call), name="store-call"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _run(self, key: str, *command: EncodableT, again: bool = False) -> object:
        try:
            return await self._route(key, *command, again=again)
        except ResponseError as exc:
            raise unavailable(exc) from exc

    async def _run_script(
        self, source: str, digest: str, keys: Sequence[str], args: Sequence[str | bytes | int | float]
    ) -> list[object]:
        operands = (len(keys), *keys, *args)
        try:
            try:
                answer = await self._route(keys[0], "EVALSHA", digest, *operands)
            except NoScriptError:  # refused before anything ran
                answer = await self._route(keys[0], "EVAL", source, *operands)
        except ResponseError as exc:
            raise unavailable(exc, in_script=True) from exc
        if not isinstance(answer, list):
            raise StoreUnavailable("broken answer")
        return answer

    async def _route(self, key: str, *command: EncodableT, again: bool = False) -> object:
        """Run on the server that holds the key. A redirect or READONLY means that nothing ran: so it is followed."""
        node = await self._topology.node_for(key)
        asking = False
        for _ in range(_REDIRECTS):
            try:
                return await node.call(*command, asking=asking, again=again)
            except MovedError as exc:
                node, asking = self._topology.moved(key, _named(exc, node)), False
            except AskError as exc:
                node, asking = self._topology.at(_named(exc, node)), True
            except ReadOnlyError:
                present = await self._topology.after_read_only(key, node)
                if present is node:
                    raise
                node, asking = present, False
        raise StoreUnavailable("cluster down")

    async def _purge(self, prefix: str) -> int:
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in prefix) + "*"
        deleted, cursor = 0, b"0"
        deadline_s = asyncio.get_running_loop().time() + _PURGE_S
        while asyncio.get_running_loop().time() < deadline_s:
            answer = await self._run(prefix, "SCAN", cursor, "MATCH", pattern, "COUNT", _PURGE_STEP, again=True)
            cursor, keys = cast("tuple[bytes, list[bytes]]", answer)
            if keys:
                deleted += cast("int", await self._run(prefix, "UNLINK", *keys))
            if cursor == b"0":
                return deleted
        raise StoreUnavailable("timed out")


async def _timed(work: Coroutine[Any, Any, T], op: Op, on_call: OnCall) -> T:
    """Do the work, and tell how it went."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    detail: StoreDetail | None = None
    try:
        return await work
    except StoreUnavailable as exc:
        detail = exc.detail
        raise
    finally:
        on_call(op, loop.time() - begun_s, detail)


def _named(exc: AskError, node: Node) -> Address:
    """The address in a redirect; one without a host means the host that was asked."""
    return Address(host=exc.host or node.address.host, port=int(exc.port))


def _topology(settings: RedisSettings, dialer: ConnectionFactory, sentinel_password: str | None) -> Topology:
    def connect(address: Address) -> Node:
        return Node(address, dialer=dialer, connections=settings.connections, timeout_s=settings.timeout_s)

    if settings.mode == "single":
        if len(dialer.addresses) > 1:
            raise ValueError("redis.url: several hosts are for the modes sentinel and cluster")
        return SingleTopology(connect(dialer.addresses[0]))
    if not dialer.addresses[0].host:
        raise ValueError(f"redis.url: mode {settings.mode} needs hosts, not a Unix socket")
    if settings.mode == "cluster":
        if dialer.database:
            raise ValueError("redis.url: a cluster has database 0 only")
        return ClusterTopology(dialer.addresses, connect=connect)
    asker = dialer.for_sentinels(sentinel_password)
    sentinels = tuple(Node(a, dialer=asker, connections=2, timeout_s=settings.timeout_s) for a in dialer.addresses)
    return SentinelTopology(sentinels, master=settings.sentinel_master, connect=connect)
