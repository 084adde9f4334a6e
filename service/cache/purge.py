"""Drops an app's blocks everywhere: in Redis, and in the memory of every replica.

Each replica clears its memory when it receives a message on the app's channel. A purge publishes before it deletes, so
that no replica stores the result of a fetch that began earlier, and again afterwards, for replicas that read a block in
between. The token of an app's last purge stays in Redis: a replica that may have missed a message compares tokens, and
clears its memory only if it has missed a purge.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable

from service.cache.redis_blocks import RedisBlocks
from service.model.errors import StoreUnavailable
from service.store.interfaces import Store

HEARD_S = 0.1
"""How long a purge waits for other replicas to receive its message before it deletes."""
TOKEN_TTL_MS = 30 * 86_400_000
"""Longer than any block's lifetime."""

Forget = Callable[[str], object]


class Purge:
    """Purges the blocks of apps. Callbacks that were added are called with an app when they must forget its data."""

    def __init__(self, store: Store, cache: RedisBlocks, *, prefix: str, apps: Iterable[str]) -> None:
        self._store = store
        self._cache = cache
        self._prefix = prefix
        self._tokens: dict[str, bytes | None] = dict.fromkeys(apps)
        self._own: dict[str, bytes] = {}
        self._forget: list[Forget] = []
        self._looking: set[asyncio.Task[None]] = set()

    def add(self, forget: Forget) -> None:
        """Register a callback to call with each app to forget."""
        self._forget.append(forget)

    def start(self) -> None:
        """Listen for purges by other replicas."""
        for app in self._tokens:
            self._store.listen(self._key(app), self._heard(app), on_gap=self._gap(app))

    async def drop(self, app: str) -> int:
        """Drop all blocks of an app; return how many values Redis had.

        This replica's memory is cleared in any case. Raise StoreUnavailable.
        """
        token = self._own[app] = secrets.token_bytes(8)
        self._drop_memory(app, token)
        await self._store.put(self._key(app), token, ttl_ms=TOKEN_TTL_MS)
        await self._store.publish(self._key(app), token)
        await asyncio.sleep(HEARD_S)
        dropped = await self._cache.drop_app(app)
        self._drop_memory(app, token)
        await self._store.publish(self._key(app), token)
        return dropped

    async def aclose(self) -> None:
        """Wait for the token checks under way, which the store limits in time."""
        while self._looking:
            await asyncio.wait(self._looking)

    def _key(self, app: str) -> str:
        """Return the key of the token of the app's last purge, which is also the channel that announces it."""
        return f"{self._prefix}:{{{app}}}:purged"

    def _drop_memory(self, app: str, token: bytes | None) -> None:
        self._tokens[app] = token
        for forget in self._forget:
            forget(app)

    def _heard(self, app: str) -> Callable[[bytes], None]:
        def heard(token: bytes) -> None:
            if token != self._own.get(app):  # a replica ignores its own message: it has stored new blocks since
                self._drop_memory(app, token)

        return heard

    def _gap(self, app: str) -> Callable[[], None]:
        def look() -> None:
            task = asyncio.create_task(self._look(app))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

        return look

    async def _look(self, app: str) -> None:
        """Check whether a purge was missed. A Redis that has lost the token has lost the blocks, but purged none."""
        known = self._tokens[app]
        try:
            token = await self._store.get(self._key(app))
        except StoreUnavailable:
            self._drop_memory(app, known)
            return
        if token is not None and token not in (known, self._tokens[app]):
            self._drop_memory(app, token)
