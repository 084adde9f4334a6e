"""What the rest of Taskgate asks of Redis. Every method raises StoreUnavailable where it can't be had."""

from collections.abc import Callable, Sequence
from typing import Protocol

Handler = Callable[[bytes], None]


class Script(Protocol):
    """A Lua script; all its keys share one hash tag."""

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
        """Run once: never repeated by the client, for a script may not be run twice."""
        ...


class Store(Protocol):
    """Values with an end, scripts, and messages to all replicas."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None. Tried once more on a broken connection."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        """Keep a value for `ttl_ms`."""
        ...

    def script(self, source: str) -> Script:
        """Make a script callable; it is loaded when first called, and again where the server has forgotten it."""
        ...

    def listen(self, channel: str, handler: Handler) -> None:
        """Call `handler` for each message on `channel` from now on; messages may be lost when Redis is away."""
        ...

    async def ping(self) -> None:
        """Return where Redis answers."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...
