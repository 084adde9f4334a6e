"""Runs a script in a way that detects a restart, a failover and a restored backup.

Redis keeps scripts in memory only: a server that restarts forgets them, and a promoted replica has never had them. So
the script's text is loaded once for each *run*, under a random name in a comment at its head, and called by its digest
from then on. If the server does not know the digest, it is a different one or has restarted: the script is then loaded
under a new run and treats the old one's state as lost. Needs no command but EVAL and EVALSHA. See
docs/adr/0011-runs.md.

Releases whose scripts differ share a run: the release that begins one also loads a mark, whose text is the same in all
releases. If the mark is known but the script is not, another release has begun the run on this very server, and our
script is loaded beside it.
"""

import secrets
from collections import deque
from collections.abc import Sequence

from service.model.errors import StoreUnavailable
from service.store.interfaces import Script, Store

SHEBANG = "#!lua flags=allow-oom\n"
"""Run the script even if Redis is out of memory: it needs only a few kilobytes."""
LEFT_MAX = 32
"""How many superseded runs are remembered: a server that still has one of them has outdated state."""
TRIES = 4
"""How many times within one call another replica may begin a new run."""
NEWER_S = 10
"""How long after its last call a newer release is left alone."""

_MARK = "-- run {run} has begun here\nreturn {{1}}"
"""Must never change: all releases look for the same text."""

# KEYS: 1 state. ARGV: 1 the format of this release. Returns {the state's run, or '', or 'newer'}.
_CURRENT = """
local packed = redis.pcall('GET', KEYS[1])
local readable, kept = pcall(cmsgpack.unpack, packed)
if not readable or type(kept) ~= 'table' then kept = {} end
if type(kept[1]) ~= 'number' or type(kept[4]) ~= 'string' then return {'', 0} end
local since_s = redis.call('TIME')[1] - (tonumber(kept[3]) or 0) / 1000
local is_newer = kept[1] > tonumber(ARGV[1]) and math.abs(since_s) < tonumber(ARGV[2])
return {kept[4], is_newer and 1 or 0}
"""


class ScriptRuns:
    """One script with one state, run under the state's current run; `KEYS[1]` of all calls is the state.

    The script gets its run, and the run that it may replace, after its own arguments. `left` are the last runs that
    this replica has left, at most LEFT_MAX.
    """

    def __init__(self, store: Store, source: str, *, format_: int) -> None:
        self._store = store
        self._source = source
        self._format = format_
        self._current = store.script(_CURRENT)
        self.left: deque[str] = deque(maxlen=LEFT_MAX)
        self._run = ""
        self._script = self._under("")

    async def __call__(self, keys: Sequence[str], args: Sequence[str | bytes]) -> list[object]:
        """Run the script, at most once. Raise StoreUnavailable, including when a newer release is active."""
        answer = await self._script.if_loaded(keys, (*args, self._run, "")) if self._run else None
        for _ in range(TRIES):
            match answer:
                case [b"other", bytes() as run] if (name := run.decode(errors="replace")) not in self.left:
                    self._adopt(name)
                    answer = await self._script.if_loaded(keys, (*args, self._run, ""))
                case None | [b"other", *_] | [b"newer"]:
                    answer = await self._begin_run(keys, args)
                case _:
                    return answer
        raise StoreUnavailable("script refused")

    async def _begin_run(self, keys: Sequence[str], args: Sequence[str | bytes]) -> list[object]:
        """Find the state's run or, if this server does not know it, begin a new one."""
        found, is_newer = await self._current(keys[:1], (self._format, NEWER_S))
        if not isinstance(found, bytes):
            raise StoreUnavailable("broken answer")
        if is_newer:
            raise StoreUnavailable("newer release")
        current = found.decode(errors="replace")
        if current not in ("", self._run, *self.left):
            return [b"other", found]
        if current and current == self._run and await self._has_begun(keys):
            answer = await self._script.load(keys, (*args, current, ""))
            if await self._has_begun(keys):  # otherwise the server has changed in between
                return answer
        self._adopt(secrets.token_hex(16))
        await self._mark().load(keys[:1], ())
        return await self._script.load(keys, (*args, self._run, current))

    async def _has_begun(self, keys: Sequence[str]) -> bool:
        """Return whether a replica of any release has begun our run on this server since it started."""
        return await self._mark().if_loaded(keys[:1], ()) is not None

    def _mark(self) -> Script:
        return self._store.script(_MARK.format(run=self._run))

    def _adopt(self, run: str) -> None:
        if self._run:
            self.left.append(self._run)
        self._run, self._script = run, self._under(run)

    def _under(self, run: str) -> Script:
        return self._store.script(f"{SHEBANG}-- run {run}\n{self._source}")
