"""Versions in Redis, so that a watcher can resume at any replica. Bounded by age and size."""

import structlog

from service.model.errors import StoreUnavailable
from service.store.interfaces import VALUE_MAX_BYTES, Store
from service.watch.versions import ListVersion, decode_version, encode_version

log = structlog.get_logger("taskgate.watch")


class VersionStore:
    """Keeps versions for `keep_s` seconds. If Redis loses one, a reconnecting watcher gets the whole list."""

    def __init__(self, store: Store, *, prefix: str, keep_s: float) -> None:
        self._store = store
        self._prefix = prefix
        self.keep_s = keep_s

    async def put(self, app: str, version: ListVersion) -> None:
        """Store a version, if Redis accepts it."""
        value = encode_version(version)
        if len(value) > VALUE_MAX_BYTES:
            return
        try:
            await self._store.put(self._key(app, version.name), value, ttl_ms=max(int(self.keep_s * 1000), 1))
        except StoreUnavailable as exc:
            log.warning("watch.version_not_stored", app=app, detail=exc.detail)

    async def get(self, app: str, name: str) -> ListVersion | None:
        """Return a version; None if it is missing or unreadable, or Redis is unavailable."""
        try:
            value = await self._store.get(self._key(app, name))
        except StoreUnavailable:
            return None
        return None if value is None else decode_version(value)

    def _key(self, app: str, name: str) -> str:
        return f"{self._prefix}:{{{app}}}:w:{name}"
