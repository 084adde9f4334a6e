"""A world for schedulers: true time, a server's clock that may step, and both kinds of scheduler on them."""

import hashlib
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import redis

from service.budget.scheduler.interfaces import Scheduler, WaitingCount
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.shared import RedisScheduler
from tests.servers import VALKEY, Server

T = TypeVar("T")
RULES = Rules(calls=2, window_ms=1000, transit_ms=200, fetch_lease_ms=2000)


@contextmanager
def server(binary: str = VALKEY) -> Iterator[redis.Redis]:
    """A client of a real server, by a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        path = str(Path(folder) / "s")
        with Server("--unixsocket", path, binary=binary), redis.Redis(unix_socket_path=path) as client:
            yield client


class ScriptHere:
    """A script run through a blocking client: enough of the store's port for these tests."""

    def __init__(self, client: redis.Redis, source: str) -> None:
        self._client = client
        self._source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
        """Run it once."""
        return await self.load(keys, args)

    async def if_loaded(self, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object] | None:
        """Run it where the server has it."""
        try:
            return self._client.evalsha(self._digest, len(keys), *keys, *args)  # type: ignore[return-value]
        except redis.exceptions.NoScriptError:
            return None

    async def load(self, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
        """Run it, and have the server remember it."""
        return self._client.eval(self._source, len(keys), *keys, *args)  # type: ignore[return-value]


class StoreHere:
    """The part of the store's interface that a scheduler uses."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def script(self, source: str) -> ScriptHere:
        """Make a script callable."""
        return ScriptHere(self.client, source)


class World:
    """True time in milliseconds, the offset of the server's clock, and the server's identity."""

    def __init__(self, client: redis.Redis | None, rules: Rules = RULES) -> None:
        self.now = 10_000.0
        self.off = 1_000_000_000
        self.run_id = "a"
        self.rules = rules
        self.policy = Policy(rules)
        self.blocks: dict[str, bytes] = {}
        self.client = client
        self._upcoming: list[float] = []
        self._script_at: float | None = None
        if client is not None:
            client.flushall()
            client.script_flush()

    def plan(self, *, sent: float, at: float, back: float) -> None:
        """The next call is sent, runs in the script and is answered at these times."""
        self._upcoming = [sent, back]
        self._script_at = at

    def _clock(self) -> float:
        return self._upcoming.pop(0) if self._upcoming else self.now

    def _server(self) -> tuple[int, str]:
        at = self.now if self._script_at is None else self._script_at
        return int(at) + self.off, self.run_id

    def _chances(self, replica: str) -> Callable[[], int]:
        count = sum(map(ord, replica)) * 1_000_000

        def chance() -> int:
            nonlocal count
            count += 1
            return count

        return chance

    def local(self, replica: str) -> LocalScheduler:
        """A replica of the world without Redis."""
        return LocalScheduler(
            self.policy,
            self._clock,
            replica=replica,
            stored=lambda key: self.blocks.get(key, b""),
            chance=self._chances(replica),
            server=self._server,
        )

    def shared(self, replica: str) -> RedisScheduler:
        """A replica of the world with Redis."""
        return RedisScheduler(
            StoreHere(self.client),  # type: ignore[arg-type]
            prefix="tg",
            app="news",
            replica=replica,
            rules=self.rules,
            clock_ms=self._clock,
            chance=self._chances(replica),
            server_ms=lambda: self._server()[0],
        )

    def replica(self, name: str) -> Scheduler:
        """A replica of the kind that this world has."""
        return self.local(name) if self.client is None else self.shared(name)

    def put(self, key: str, value: bytes) -> None:
        """Store a block."""
        self.blocks[key] = value
        if self.client is not None:
            self.client.set(key, value)

    def lose(self, key: str) -> None:
        """Lose a block: it has expired, or was evicted or deleted."""
        self.blocks.pop(key, None)
        if self.client is not None:
            self.client.delete(key)

    def garble(self, key: str) -> None:
        """Store a value of another type under a block's key."""
        self.lose(key)
        if self.client is not None:
            self.client.rpush(key, b"0123456789abcdef")

    def flush(self) -> None:
        """Lose all of Redis's data."""
        self.policy.forget()
        self.blocks.clear()
        if self.client is not None:
            self.client.flushall()

    def restart(self) -> None:
        """Fail over: another server with the same data."""
        self.run_id += "a"
        if self.client is not None:
            self.client.script_flush()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waited")


def row(
    caller: str, count: int = 1, *, weight: float = 1, waited_ms: int = 0, background: bool = False
) -> WaitingCount:
    """One line of a report."""
    return WaitingCount(caller=caller, weight=weight, count=count, waited_ms=waited_ms, background=background)
