"""The values and messages of a Redis, in memory, and a replica's store on top of it."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from service.model.errors import StoreUnavailable
from service.store.interfaces import OnGap, OnMessage, Put, Script

T = TypeVar("T")


class MemoryRedis:
    """Values with an expiry, and subscribers. `clock` counts seconds and never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._values: dict[str, tuple[bytes, float]] = {}
        self.stores: list[MemoryStore] = []
        self.is_away = False

    def peek(self, key: str) -> bytes:
        """Return the value under a key, b"" for none."""
        value, ends_at_s = self._values.get(key, (b"", 0.0))
        return value if self._clock() < ends_at_s else b""

    def put(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Store a value."""
        self._values[key] = (value, self._clock() + ttl_s)

    def delete(self, key: str) -> bool:
        """Delete a key; return whether there was a value."""
        was_there = bool(self.peek(key))
        self._values.pop(key, None)
        return was_there

    def names(self) -> list[str]:
        """All keys that have not expired."""
        now_s = self._clock()
        self._values = {key: kept for key, kept in self._values.items() if now_s < kept[1]}
        return list(self._values)

    def change(self, key: str, value: bytes) -> None:
        """Replace the bytes under a key, without moving its expiry."""
        self._values[key] = (value, self._values[key][1])

    def copy(self) -> dict[str, tuple[bytes, float]]:
        """The current data of a replica of this server."""
        return dict(self._values)

    def restore(self, values: dict[str, tuple[bytes, float]]) -> None:
        """Restore the data of an earlier time, or none."""
        self._values = dict(values)

    def publish(self, channel: str, message: bytes) -> None:
        """Send a message to the current subscribers."""
        for store in self.stores:
            store.deliver(channel, message)


class Network:
    """The path between a replica and Redis: its delays and losses. Each replica has its own."""

    def __init__(self, chance: random.Random, *, delay_s: tuple[float, float]) -> None:
        self._chance = chance
        self.delay_s = delay_s
        self.answers_lost = 0.0
        self.is_listening = True

    async def way(self) -> None:
        """The delay of one direction, there or back."""
        await asyncio.sleep(self._chance.uniform(*self.delay_s))

    def loses(self) -> bool:
        """Whether this answer is lost."""
        return self._chance.random() < self.answers_lost

    def message_s(self) -> float:
        """How long a message takes."""
        return self._chance.uniform(*self.delay_s)


class MemoryStore:
    """Implements `Store`, except for scripts, and passes its contract suite.

    `on_call` is called with the name of each command that is sent.
    """

    TIMEOUT_S = 0.25

    def __init__(self, redis: MemoryRedis, network: Network, on_call: Callable[[str], None] = lambda _: None) -> None:
        self._redis = redis
        self._network = network
        self._on_call = on_call
        self._handlers: dict[str, list[tuple[OnMessage, OnGap | None]]] = {}
        self._calls: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._heard_at_s = 0.0
        redis.stores.append(self)

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        return await self._call("get", lambda: self._redis.peek(key) or None)

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        """Store a value for `ttl_ms`."""
        await self._call("set", lambda: self._redis.put(key, value, ttl_s=ttl_ms / 1000))

    async def put_all(self, puts: Sequence[Put]) -> None:
        """Store values in one round trip."""

        def put_each() -> None:
            for put in puts:
                self._redis.put(put.key, put.value, ttl_s=put.ttl_ms / 1000)

        await self._call("set", put_each)

    async def delete_matching(self, prefix: str) -> int:
        """Delete all keys that begin with the prefix."""
        matching = [key for key in await self._call("scan", self._redis.names) if key.startswith(prefix)]
        return await self._call("unlink", lambda: sum(self._redis.delete(key) for key in matching))

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message to the subscribers."""
        await self._call("publish", lambda: self._redis.publish(channel, message))

    def script(self, source: str) -> Script:
        """Scripts have their own model."""
        raise NotImplementedError(source)

    def listen(self, channel: str, handler: OnMessage, *, on_gap: OnGap | None = None) -> None:
        """Subscribe to a channel a moment later."""
        loop = asyncio.get_running_loop()

        def begin() -> None:
            self._handlers.setdefault(channel, []).append((handler, on_gap))
            if on_gap is not None:
                on_gap()

        loop.call_later(self._network.message_s(), begin)

    def deliver(self, channel: str, message: bytes) -> None:
        """Deliver a message from Redis; messages keep their order."""
        if not self._network.is_listening or self._is_closed:
            return
        loop = asyncio.get_running_loop()
        self._heard_at_s = max(self._heard_at_s + 1e-6, loop.time() + self._network.message_s())
        for handler, _ in self._handlers.get(channel, ()):
            loop.call_at(self._heard_at_s, handler, message)

    def reconnect(self) -> None:
        """Subscribe again after losses."""
        self._network.is_listening = True
        for handlers in self._handlers.values():
            for _, on_gap in handlers:
                if on_gap is not None:
                    on_gap()

    async def aclose(self) -> None:
        """End all work in progress."""
        self._is_closed = True
        while self._calls:
            await asyncio.wait(self._calls)
        self._redis.stores.remove(self)

    async def _call(self, name: str, command: Callable[[], T]) -> T:
        """Finish the command even if the caller has been cancelled."""
        if self._is_closed:
            raise StoreUnavailable("closed")
        task = asyncio.create_task(self._sent(name, command))
        self._calls.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # raised in the caller, unless it has been cancelled

    async def _sent(self, name: str, command: Callable[[], T]) -> T:
        self._on_call(name)
        await self._network.way()
        if self._redis.is_away:
            raise StoreUnavailable("unreachable")
        answer = command()
        await self._network.way()
        if self._network.loses():
            await asyncio.sleep(self.TIMEOUT_S)
            raise StoreUnavailable("timed out")
        return answer
