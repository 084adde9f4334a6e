"""What the rest of Taskgate asks of Redis. Every method raises StoreUnavailable where it can't be had.

Callers may be cancelled at any time: what was sent is finished by a task of the store's own.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

Handler = Callable[[bytes], None]
OnGap = Callable[[], None]


class Script(Protocol):
    """A Lua script; all its keys share one hash tag."""

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
        """Run at most once: never repeated by the client where it may have run. `keys` holds at least one key."""
        ...

    async def if_loaded(self, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object] | None:
        """Run like a call, but only on a server that has the script; return None where it has not."""
        ...

    async def load(self, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[object]:
        """Run like a call and load the script into one server alone: where that takes no writes, no other is tried."""
        ...


class Store(Protocol):
    """Values with an end, scripts, and messages to all replicas."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None. Tried once more on a broken connection."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        """Keep a value for `ttl_ms`."""
        ...

    async def delete_matching(self, prefix: str) -> int:
        """Delete all keys that begin with `prefix`, which holds their hash tag; tell how many there were.

        Goes in small steps, so others are served meanwhile; keys written during the call may stay.
        """
        ...

    async def publish(self, channel: str, message: bytes) -> None:
        """Send a message to whoever listens on `channel` now, on any replica."""
        ...

    def script(self, source: str) -> Script:
        """Make a script callable; it is loaded when first called, and again where the server has forgotten it."""
        ...

    def listen(self, channel: str, handler: Handler, *, on_gap: OnGap | None = None) -> None:
        """Call `handler` for each message on `channel`, in order, from within the event loop.

        Messages are lost while Redis is away. `on_gap` is called each time that listening has begun, for the first time
        or anew: whoever needs to know what was said before then looks for himself.
        """
        ...

    async def aclose(self) -> None:
        """End what is under way and close all connections."""
        ...
