"""Drops an app's blocks everywhere: in Redis, and in the memory of every replica.

Each replica forgets when it covers the app's channel. A purge says so before it deletes, so that no replica puts back
what it began to fetch before, and again afterwards, for those that read a block in between. The token of an app's last
purge stays in Redis: a replica that may have missed a message compares, and forgets only where it has missed one.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable

from service.cache.redis_blocks import RedisBlocks
from service.model.errors import StoreUnavailable
from service.store.interfaces import Store

HEARD_S = 0.1
"""How long a purge gives other replicas to hear of it before it deletes."""
TOKEN_TTL_MS = 30 * 86_400_000
"""Longer than any block is kept."""

Forget = Callable[[str], object]


class Purge:
    """Purges of some apps. What was added is called with an app when what is remembered of it must go."""

    def __init__(self, store: Store, cache: RedisBlocks, *, prefix: str, apps: Iterable[str]) -> None:
        self._store = store
        self._cache = cache
        self._prefix = prefix
        self._tokens: dict[str, bytes | None] = dict.fromkeys(apps)
        self._own: dict[str, bytes] = {}
        self._forget: list[Forget] = []
        self._looking: set[asyncio.Task[None]] = set()

    def add(self, forget: Forget) -> None:
        """Have one more told which app to forget."""
        self._forget.append(forget)

    def start(self) -> None:
        """Listen for purges by other replicas."""
        for app in self._tokens:
            self._store.listen(self._key(app), self._heard(app), on_gap=self._gap(app))

    async def drop(self, app: str) -> int:
        """Drop all blocks of an app; returns how many values there were in Redis.

        What this replica remembers is gone in any case. Raises StoreUnavailable.
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
        """Wait for the looks at Redis, which the store bounds."""
        while self._looking:
            await asyncio.wait(self._looking)

    def _key(self, app: str) -> str:
        """Where the token of the app's last purge is, and the channel on which it is told."""
        return f"{self._prefix}:{{{app}}}:purged"

    def _drop_memory(self, app: str, token: bytes | None) -> None:
        self._tokens[app] = token
        for forget in self._forget:
            forget(app)

    def _heard(self, app: str) -> Callable[[bytes], None]:
        def heard(token: bytes) -> None:
            if token != self._own.get(app):  # of its own purge a replica knows, and has begun anew since
                self._drop_memory(app, token)

        return heard

    def _gap(self, app: str) -> Callable[[], None]:
        def look() -> None:
            task = asyncio.create_task(self._look(app))
            self._looking.add(task)
            task.add_done_callback(self._looking.discard)

        return look

    async def _look(self, app: str) -> None:
        """See whether a purge was missed. A Redis that has lost the token has lost the blocks, but purged none."""
        known = self._tokens[app]
        try:
            token = await self._store.get(self._key(app))
        except StoreUnavailable:
            self._drop_memory(app, known)
            return
        if token is not None and token not in (known, self._tokens[app]):
            self._drop_memory(app, token)
