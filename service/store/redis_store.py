"""The store on redis-py: routes each command to its server, and finishes the commands of cancelled callers."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar, cast

import structlog
from redis.exceptions import AskError, MovedError, NoScriptError, ReadOnlyError, ResponseError
from redis.typing import EncodableT

from service.model.errors import StoreDetail, StoreUnavailable
from service.settings import RedisSettings
from service.store.cluster import ClusterTopology
from service.store.connection_factory import Address, ConnectionFactory
from service.store.faults import unavailable
from service.store.interfaces import OnGap, OnMessage, Put, Script, ScriptArgs
from service.store.listener import Listener
from service.store.node import Node
from service.store.sentinel import SentinelTopology
from service.store.topology import SingleTopology, Topology

log = structlog.get_logger(__name__)

T = TypeVar("T")

Op = Literal["get", "put", "publish", "purge", "script", "inspect"]
OnStoreCall = Callable[[Op, float, StoreDetail | None], None]
"""Called after each call with its operation, its duration in seconds, and why it failed, if it did."""

REFUSAL_AGAIN_S = 60.0
"""The shortest interval between log entries with the same error text of a server."""
REFUSALS_MAX = 20

_REDIRECTS = 4
_PURGE_STEP = 500
_PURGE_S = 30.0


_Owned = Callable[[Op, Coroutine[Any, Any, list[object] | None]], Awaitable[list[object] | None]]


class RedisStore:
    """Implements `Store` on Redis or Valkey. Commands run in tasks of the store, at most once unless they only read.

    Opens no connection before first use. While a server is away, calls to it fail at once, except for one probe every
    0.2 s.
    """

    def __init__(
        self,
        settings: RedisSettings,
        *,
        password: str | None = None,
        sentinel_password: str | None = None,
        on_call: OnStoreCall | None = None,
    ) -> None:
        """`password` overrides the one in the URL; Sentinels get only theirs. Raise ValueError for an invalid URL."""
        self._on_call = on_call
        default_port = 26_379 if settings.mode == "sentinel" else 6379
        dialer = ConnectionFactory(
            settings.url,
            default_port=default_port,
            username=settings.username,
            password=password,
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
        )
        self._topology = _topology(settings, dialer, sentinel_password)
        self._listener = Listener(self._topology, dialer, timeout_s=settings.timeout_s)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._refusals: dict[str, float] = {}
        self._closed = False

    @property
    def open_connections(self) -> int:
        """Return how many connections are open, over all servers."""
        return sum(node.open_connections for node in self._topology.nodes) + self._listener.is_listening

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None; a key of another type than string counts as absent."""
        return cast("bytes | None", await self._owned("get", self._value(key)))

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        """Store a value for `ttl_ms`."""
        await self._owned("put", self._route(key, "SET", key, value, "PX", ttl_ms))

    async def put_all(self, puts: Sequence[Put]) -> None:
        """Store values in one round trip. Raise StoreUnavailable, including if the server has refused one of them."""
        await self._owned("put", self._put_all(puts))

    async def publish(self, channel: str, message: bytes) -> None:
        """Publish a message to all listeners; in a cluster, every server forwards it."""
        await self._owned("publish", self._route(channel, "PUBLISH", channel, message))

    async def delete_matching(self, prefix: str) -> int:
        """Delete all keys that begin with `prefix`, by steps of SCAN, within 30 s."""
        return await self._owned("purge", self._purge(prefix))

    async def setting(self, name: str, *, key: str) -> str | None:
        """Return a setting of the server that holds `key`; None if it may not be read."""
        return await self._owned("inspect", self._setting(name, key))

    def script(self, source: str) -> Script:
        """Return a callable for the script."""
        return _StoredScript(source, route=self._route, owned=self._owned)

    def listen(self, channel: str, handler: OnMessage, *, on_gap: OnGap | None = None) -> None:
        """Call `handler` for each message from now on, and `on_gap` each time listening starts."""
        self._listener.add(channel, handler, on_gap)

    async def aclose(self) -> None:
        """Finish the work in progress, which takes at most a few timeouts, and close all connections."""
        self._closed = True
        await self._listener.aclose()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._topology.aclose()

    async def _owned(self, op: Op, work: Coroutine[Any, Any, T]) -> T:
        """Run in our own task: redis-py loses or leaks a connection whose task is cancelled."""
        if self._closed:
            work.close()
            raise StoreUnavailable("closed")
        task = asyncio.create_task(self._observed(op, work), name="store-call")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _observed(self, op: Op, work: Coroutine[Any, Any, T]) -> T:
        """Await the work and report its result and duration. Log why the server refused a command or a connection.

        Raise StoreUnavailable instead of redis-py's ResponseError.
        """
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        detail: StoreDetail | None = None
        try:
            return await work
        except ResponseError as exc:
            self._refused(exc)
            fault = unavailable(exc, in_script=op == "script")
            detail = fault.detail
            raise fault from exc
        except StoreUnavailable as exc:
            detail = exc.detail
            if detail == "refused" and exc.__cause__ is not None:
                self._refused(exc.__cause__)
            raise
        finally:
            if self._on_call is not None:
                self._on_call(op, loop.time() - begun_s, detail)

    async def _put_all(self, puts: Sequence[Put]) -> None:
        commands = [("SET", put.key, put.value, "PX", put.ttl_ms) for put in puts]
        node = await self._topology.node_for(puts[0].key)
        answers = await node.call_all(commands)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, (MovedError, AskError, ReadOnlyError)):
                await self._route(command[1], *command)
            elif isinstance(answer, ResponseError):
                raise answer

    async def _setting(self, name: str, key: str) -> str | None:
        try:
            answer = await self._route(key, "CONFIG", "GET", name, again=True)
        except ResponseError:
            return None
        match answer:
            case [_, bytes() as value]:
                return value.decode(errors="replace")
            case _:
                return None

    async def _value(self, key: str) -> object:
        try:
            return await self._route(key, "GET", key, again=True)
        except ResponseError as exc:
            if not str(exc).startswith("WRONGTYPE"):
                raise
            self._refused(exc)
            return None

    def _refused(self, exc: BaseException) -> None:
        """Log the server's error text, each text at most once a minute."""
        text, now_s = str(exc)[:300], time.monotonic()  # redis-py strips some error codes from the text
        if now_s - self._refusals.get(text, -REFUSAL_AGAIN_S) >= REFUSAL_AGAIN_S:
            self._refusals.pop(text, None)
            self._refusals[text] = now_s
            while len(self._refusals) > REFUSALS_MAX:
                del self._refusals[next(iter(self._refusals))]
            log.warning("store.refused", answer=text)

    async def _route(self, key: str, *command: EncodableT, again: bool = False, follow: bool = True) -> object:
        """Run on the server that holds the key. A redirect or READONLY means that nothing was executed, so it is
        followed.

        Without `follow`, READONLY is raised instead.
        """
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
                if present is node or not follow:
                    raise
                node, asking = present, False
        raise StoreUnavailable("cluster down")

    async def _purge(self, prefix: str) -> int:
        pattern = "".join(f"\\{letter}" if letter in "*?[]\\^" else letter for letter in prefix) + "*"
        deleted, cursor = 0, b"0"
        deadline_s = asyncio.get_running_loop().time() + _PURGE_S
        while asyncio.get_running_loop().time() < deadline_s:
            answer = await self._route(prefix, "SCAN", cursor, "MATCH", pattern, "COUNT", _PURGE_STEP, again=True)
            cursor, keys = cast("tuple[bytes, list[bytes]]", answer)
            if keys:
                deleted += cast("int", await self._route(prefix, "UNLINK", *keys))
            if cursor == b"0":
                return deleted
        raise StoreUnavailable("timed out")


class _StoredScript:
    """Implements `Script` on the store that created it."""

    def __init__(self, source: str, *, route: Callable[..., Coroutine[Any, Any, object]], owned: _Owned) -> None:
        self._source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._route = route
        self._owned = owned

    async def __call__(self, keys: Sequence[str], args: ScriptArgs) -> list[object]:
        """Run the script, loading it if the server has forgotten it."""
        return cast("list[object]", await self._owned("script", self._loaded_on_demand(keys, args)))

    async def if_loaded(self, keys: Sequence[str], args: ScriptArgs) -> list[object] | None:
        """Run the script if the server has it; return None if not."""
        return await self._owned("script", self._known(keys, args))

    async def load(self, keys: Sequence[str], args: ScriptArgs) -> list[object]:
        """Load the script into one server and run it there."""
        work = self._run("EVAL", self._source, keys, args, follow=False)
        return cast("list[object]", await self._owned("script", work))

    async def _known(self, keys: Sequence[str], args: ScriptArgs) -> list[object] | None:
        try:
            return await self._run("EVALSHA", self._digest, keys, args)
        except NoScriptError:  # rejected before anything ran
            return None

    async def _loaded_on_demand(self, keys: Sequence[str], args: ScriptArgs) -> list[object]:
        answer = await self._known(keys, args)
        return await self._run("EVAL", self._source, keys, args) if answer is None else answer

    async def _run(
        self, command: str, script: str, keys: Sequence[str], args: ScriptArgs, *, follow: bool = True
    ) -> list[object]:
        answer = await self._route(keys[0], command, script, len(keys), *keys, *args, follow=follow)
        if not isinstance(answer, list):
            raise StoreUnavailable("broken answer")
        return answer


def _named(exc: AskError, node: Node) -> Address:
    """Return the address in a redirect; an empty host means the server that was called."""
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
