"""Which stored block of a list holds a task, for all replicas: one hash in Redis for each app, bounded in size.

A place may be outdated: the block may have been replaced, or have expired. Readers must look for the task in the block.
"""

from collections.abc import Sequence

import msgspec

from service.model.errors import StoreUnavailable
from service.store.interfaces import Store

TASKS_MAX = 100_000
"""How many tasks of an app have a place; beyond that the hash starts again. Some 110 bytes of Redis each."""

# KEYS: the hash. ARGV: its time to live (ms), how many tasks it may have, the value, and the tasks' ids. The field '#'
# holds the number of tasks. A key that is not such a hash starts again.
_PUT = """
local pairs = {}
for i = 4, #ARGV do pairs[#pairs + 1], pairs[#pairs + 2] = ARGV[i], ARGV[3] end
local added = redis.pcall('HSET', KEYS[1], unpack(pairs))
local count = type(added) == 'number' and redis.pcall('HINCRBY', KEYS[1], '#', added)
if type(count) ~= 'number' or count > tonumber(ARGV[2]) then
  redis.call('UNLINK', KEYS[1])
  redis.call('HSET', KEYS[1], '#', redis.call('HSET', KEYS[1], unpack(pairs)))
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {}
"""
_FIND = """
local value = redis.pcall('HGET', KEYS[1], ARGV[1])
return { type(value) == 'string' and value or '' }
"""


class TaskPlace(msgspec.Struct, frozen=True, kw_only=True):
    """The block that held a task when it was fetched, by the end of its key in Redis."""

    block: str
    fetched_at_ms: int


class TaskPlaces:
    """Reads and writes places. `prefix` starts all keys; at most `tasks_max` tasks of an app have one."""

    def __init__(self, store: Store, *, prefix: str, tasks_max: int = TASKS_MAX) -> None:
        self._prefix = prefix
        self._tasks_max = tasks_max
        self._put = store.script(_PUT)
        self._find = store.script(_FIND)

    def redis_key(self, app: str) -> str:
        """Return the key of the hash: among the app's blocks, with which it is dropped."""
        return f"{self._prefix}:{{{app}}}:b:i"

    async def put(self, app: str, ids: Sequence[int], place: TaskPlace, *, ttl_ms: int) -> None:
        """Note where these tasks are; the hash is kept for `ttl_ms` after the last time. Raise StoreUnavailable."""
        if ids:
            value = f"{place.fetched_at_ms} {place.block}"
            await self._put((self.redis_key(app),), (ttl_ms, self._tasks_max, value, *ids))

    async def find(self, app: str, task_id: int) -> TaskPlace | None:
        """Return where a task was last seen. Raise StoreUnavailable."""
        answer = await self._find((self.redis_key(app),), (task_id,))
        if len(answer) != 1 or not isinstance(answer[0], bytes):
            raise StoreUnavailable("broken answer")
        fetched_at_ms, _, block = answer[0].decode(errors="replace").partition(" ")
        if not block or not fetched_at_ms.isdigit() or len(fetched_at_ms) > 18:
            return None
        return TaskPlace(block=block, fetched_at_ms=int(fetched_at_ms))
