"""Bounds the blocks that Redis keeps for each caller, so that no caller's queries evict those of all others.

Blocks are counted, not queries: one query over a long list fills as much memory as thousands of keywords. A caller's
blocks of an app are counted over all replicas, in a sorted set whose scores are the times at which they expire. Beyond
the bound a block is still served and shared, but kept for `BRIEF_S` only.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import cast

import structlog

from service.cache.lru import LruTable
from service.model.errors import StoreUnavailable
from service.store.interfaces import Put, Store

BRIEF_S = 10.0
"""How long a block beyond the bound is kept: enough for all replicas that wait for it, and for its reader's next page.
At 5 calls a second these are 50 blocks of an app."""
QUERIES_MAX = 10_000
"""How many queries a replica remembers for the count of distinct ones; 250 bytes each."""
QUERY_SEEN_S = 3600.0

log = structlog.get_logger()


# KEYS: the caller's blocks; what to store, the block first. ARGV: the block's name, the longest time that any block is
# kept, how long one beyond the bound is (both in ms), the bound; for each key to store, how long to keep it (ms) and
# its value. Returns 1 if the block fits and is now counted, else 0; how many blocks are counted for the caller; and how
# long the block is kept (ms). A key of another type starts again. Is not run if Redis is out of memory.
_PUT = """#!lua
local key, longest_ms = KEYS[1], tonumber(ARGV[2])
local keep_ms = tonumber(ARGV[5])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expired = redis.pcall('ZREMRANGEBYSCORE', key, '-inf', string.format('%d', now_ms))
if type(expired) == 'table' then
  if not string.find(expired.err, 'WRONGTYPE') then return expired end
  redis.call('DEL', key)
end
redis.call('ZREMRANGEBYSCORE', key, string.format('(%d', now_ms + longest_ms), '+inf')
local count = redis.call('ZCARD', key)
local is_new = not redis.call('ZSCORE', key, ARGV[1])
local fits = not is_new or count < tonumber(ARGV[4])
local most_ms = keep_ms
if fits then
  redis.call('ZADD', key, string.format('%d', now_ms + keep_ms), ARGV[1])
  redis.call('PEXPIRE', key, longest_ms)
  if is_new then count = count + 1 end
else
  most_ms = math.min(keep_ms, math.max(redis.call('PTTL', KEYS[2]), tonumber(ARGV[3])))
end
for at = 2, #KEYS do
  local its_ms = fits and tonumber(ARGV[2 * at + 1]) or math.min(tonumber(ARGV[2 * at + 1]), most_ms)
  redis.call('SET', KEYS[at], ARGV[2 * at + 2], 'PX', string.format('%d', its_ms))
end
return {fits and 1 or 0, count, most_ms}
"""


class CallerShares:
    """Counts blocks by app and caller. `clock` returns seconds and never steps back.

    `blocks` are the numbers of blocks kept, as of each caller's last fetch; `brief` counts those kept only briefly.
    """

    def __init__(
        self, store: Store, *, prefix: str, blocks_max: int, clock: Callable[[], float], brief_s: float = BRIEF_S
    ) -> None:
        self.blocks: dict[tuple[str, str], int] = {}
        self.brief: Counter[tuple[str, str]] = Counter()
        self._put = store.script(_PUT)
        self._prefix = prefix
        self._blocks_max = blocks_max
        self._clock = clock
        self._brief_ms = int(brief_s * 1000)
        self._queries: LruTable[tuple[str, str, str], float] = LruTable(QUERIES_MAX)

    async def put(self, puts: Sequence[Put], *, name: str, app: str, caller: str, longest_ms: int) -> int | None:
        """Store a block of the caller, the first of `puts`, with the others, and count it. Return how long it is kept
        (ms): as it says, or less beyond the bound. None if Redis is unavailable or may not count: store it otherwise.

        `name` is the end of its key, which begins with what all blocks of its query have alike. A block that is stored
        already keeps its time.
        """
        who = app, caller
        self._queries.put((*who, name.partition(":")[0]), self._clock())
        keys = (f"{shares_of(self._prefix, app)}{caller}", *(put.key for put in puts))
        values = (each for put in puts for each in (put.ttl_ms, put.value))
        try:
            answer = await self._put(keys, (name, longest_ms, self._brief_ms, self._blocks_max, *values))
        except StoreUnavailable:
            return None
        fits, count, kept_ms = cast("list[int]", answer)
        self.blocks[who] = count
        if not fits:
            if not self.brief[who]:
                log.warning("cache.caller_over_bound", app=app, caller=caller, blocks_max=self._blocks_max)
            self.brief[who] += 1
        return kept_ms

    def queries(self) -> Counter[tuple[str, str]]:
        """Return how many distinct queries this replica has fetched in the last hour, by app and caller.

        At most QUERIES_MAX in all: beyond that, the oldest are not counted.
        """
        since_s = self._clock() - QUERY_SEEN_S
        return Counter((app, caller) for (app, caller, _), seen_s in self._queries.items() if seen_s > since_s)

    def forget(self, app: str) -> None:
        """Called when the app's blocks were dropped, and Redis' counts with them."""
        for who in [who for who in self.blocks if who[0] == app]:
            del self.blocks[who]


def shares_of(prefix: str, app: str) -> str:
    """Return how the keys of the counts of an app's callers begin."""
    return f"{prefix}:{{{app}}}:share:"
