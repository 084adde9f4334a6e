"""What the rest of Taskgate needs from Redis. Every method raises StoreUnavailable if Redis cannot be reached.

Callers may be cancelled at any time: the store's own task finishes the command.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

VALUE_MAX_BYTES = 16 * 1024 * 1024
"""The largest value that is stored: a larger one would block Redis and the connection."""

OnMessage = Callable[[bytes], None]
OnGap = Callable[[], None]
ScriptArgs = Sequence[str | bytes | int | float]


class Put(msgspec.Struct, frozen=True, kw_only=True):
    """A value to store under a key for `ttl_ms`."""

    key: str
    value: bytes
    ttl_ms: int


class Script(Protocol):
    """A Lua script; all of its keys share one hash tag."""

    async def __call__(self, keys: Sequence[str], args: ScriptArgs) -> list[object]:
        """Run at most once: the client never repeats a script that may have run. `keys` holds at least one key."""
        ...

    async def if_loaded(self, keys: Sequence[str], args: ScriptArgs) -> list[object] | None:
        """Run like a call, but only on a server that has the script; return None if it does not."""
        ...

    async def load(self, keys: Sequence[str], args: ScriptArgs) -> list[object]:
        """Run like a call, and load the script into a single server: if that one rejects writes, no other is tried."""
        ...


class Store(Protocol):
    """Values with an expiry time, scripts, and messages to all replicas."""

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None. Retried once on a broken connection."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_ms: int) -> None:
        """Store a value for `ttl_ms`."""
        ...

    async def put_all(self, puts: Sequence[Put]) -> None:
        """Store values in one round trip; all of their keys share one hash tag. After a failure, some may be stored."""
        ...

    async def delete_matching(self, prefix: str) -> int:
        """Delete all keys that begin with `prefix`, which contains their hash tag; return how many there were.

        Works in small steps, so that other commands run in between; keys written during the call may remain.
        """
        ...

    async def publish(self, channel: str, message: bytes) -> None:
        """Publish a message to the current listeners on `channel`, on all replicas."""
        ...

    def script(self, source: str) -> Script:
        """Return a callable for a script, which is loaded on first use, and again if the server has forgotten it."""
        ...

    def listen(self, channel: str, handler: OnMessage, *, on_gap: OnGap | None = None) -> None:
        """Call `handler` for each message on `channel`, in order, from within the event loop.

        Messages are lost while Redis is away. `on_gap` is called each time listening starts, both at first and after an
        interruption: the subscriber must check for itself whether it has missed anything.
        """
        ...
