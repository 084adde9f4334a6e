"""What each caller used of an app, summed over all replicas and kept in Redis by minute, for an hour.

Counting only adds in memory. A task of the ledger's own sends what has come together, at most once a second, as one
batch for each ten seconds of time; a batch that may have arrived is sent again under its number, and counted once.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import cast

import msgspec

from service.model.budgets import COLUMNS, Counts, Tally
from service.model.errors import StoreUnavailable
from service.store.port import Script, Store

STEP_S = 10
"""Ten seconds are told apart in the last minute, minutes in the last hour."""
STEPS = 6
MINUTES = 60
CALLERS_MAX = 1_000
"""How many callers are told apart by one replica in one step of time; all beyond count as OVERFLOW."""
OVERFLOW = "~more"
FLUSH_S = 1.0
"""The least time between two batches, and how old the sums may be that are shown."""
READ_MAX = 6
"""How many minutes are read by one script."""
_LATE_S = 30
"""How much longer than needed keys stay, for clocks that differ and batches that come late."""

# KEYS: where the batch is added. ARGV: the replica, the batch's number, then for each key how long it lives (ms), then
# field and number in turn. A batch of a number that a key has seen from this replica is not added to it again.
_ADD = """
local seen_by = '#' .. ARGV[1]
for i, key in ipairs(KEYS) do
  local seen = tonumber(redis.call('HGET', key, seen_by) or '-1')
  if seen < tonumber(ARGV[2]) then
    for j = 3 + #KEYS, #ARGV, 2 do redis.call('HINCRBY', key, ARGV[j], ARGV[j + 1]) end
    redis.call('HSET', key, seen_by, ARGV[2])
    redis.call('PEXPIRE', key, ARGV[2 + i])
  end
end
return {#KEYS}
"""
_READ = """
local all = {}
for i, key in ipairs(KEYS) do all[i] = redis.call('HGETALL', key) end
return all
"""

Cell = tuple[str, str]
"""A caller and a column."""


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    step: int
    cells: Mapping[Cell, int]


class Ledger:
    """The counts of one app, for all columns of `Counts`. Lives from `start` to `aclose`.

    `clock` is the wall clock in seconds: replicas whose clocks differ count into neighbouring minutes. A batch that
    can't be sent for an hour is lost, and so is what is counted in a replica that dies, up to a second's worth.
    """

    def __init__(self, store: Store, *, prefix: str, app: str, replica: str, clock: Callable[[], float]) -> None:
        self._add: Script = store.script(_ADD)
        self._read: Script = store.script(_READ)
        self._base = f"{prefix}:{{{app}}}:ledger:"
        self._replica = replica
        self._clock = clock
        self._open: dict[int, dict[Cell, int]] = {}
        self._sending: _Batch | None = None
        self._number = 0
        self._known: dict[str, Tally] = {}
        self._known_minutes: dict[int, dict[str, Counts]] = {}
        self._looked = 0
        self._known_until_s = -1.0
        self._asking = asyncio.Lock()
        self._counted = asyncio.Event()
        self._closing = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._sender = asyncio.create_task(self._send_on())

    async def aclose(self) -> None:
        """Send what there is, once, and stop."""
        self._closing.set()
        self._counted.set()
        if self._sender is not None:
            await self._sender

    def count(self, caller: str, column: str, number: int = 1) -> None:
        """Add to a column of the caller's, now. Neither waits nor fails."""
        cells = self._open.setdefault(self._step(), {})
        if (caller, column) not in cells and len(cells) >= CALLERS_MAX * len(COLUMNS):
            caller = OVERFLOW
        cells[caller, column] = cells.get((caller, column), 0) + number
        self._counted.set()

    async def tallies(self) -> Mapping[str, Tally]:
        """The last minute and hour of every caller: as Redis has them, or had them when last asked, and what is unsent.

        Bounded work: at most once a second Redis is asked for six short times and three minutes, at first for all.
        """
        async with self._asking:
            await self._refresh()
            return _summed((self._known, self._unsent()))

    async def minutes(self) -> Mapping[int, Mapping[str, Counts]]:
        """The same by minute, counted since the epoch, and caller; a minute without any count may be missing."""
        async with self._asking:
            await self._refresh()
            by_minute = {minute: dict(rows) for minute, rows in self._known_minutes.items()}
            for step, unsent in self._unsent_cells():
                _add_rows(by_minute.setdefault(step // STEPS, {}), _rows(unsent))
        return by_minute

    async def _refresh(self) -> None:
        """Ask Redis, unless that was done within the last second."""
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._known_until_s:
            self._known_until_s = now_s + FLUSH_S
            with contextlib.suppress(StoreUnavailable):
                await self._read_all()

    async def _read_all(self) -> None:
        """Ask for the last minute, for minutes that may have changed, and for one of the others in turn.

        In small scripts: with a thousand callers the whole hour at once would stop Redis for half a second. A batch of
        another replica that comes late for a minute that is over is seen when that minute's turn comes.
        """
        step = self._step()
        now = step // STEPS
        self._looked += 1
        in_turn = now - 2 - self._looked % (MINUTES - 2)
        known = {minute: rows for minute, rows in self._known_minutes.items() if now - MINUTES < minute < now - 1}
        known.pop(in_turn, None)
        wanted = iter([minute for minute in range(now, now - MINUTES, -1) if minute not in known])
        last = _counts(await self._hashes(f"{self._base}s:{step - back}" for back in range(STEPS)))
        while minutes := list(islice(wanted, READ_MAX)):
            hashes = await self._hashes(f"{self._base}m:{minute}" for minute in minutes)
            known.update((minute, _rows(_counts((each,)))) for minute, each in zip(minutes, hashes, strict=True))
        self._known_minutes = known
        self._known = _tallied(_rows(last), known.values())

    async def _hashes(self, keys: Iterable[str]) -> list[list[bytes]]:
        return cast("list[list[bytes]]", await self._read([*keys], ()))

    def _unsent(self) -> dict[str, Tally]:
        step = self._step()
        minute: dict[str, Counts] = {}
        hour = []
        for at, cells in self._unsent_cells():
            hour.append(rows := _rows(cells))
            if at > step - STEPS:
                _add_rows(minute, rows)
        return _tallied(minute, hour)

    def _unsent_cells(self) -> tuple[tuple[int, Mapping[Cell, int]], ...]:
        """What is not known to be in Redis, by step."""
        sending = () if self._sending is None else ((self._sending.step, self._sending.cells),)
        return (*self._open.items(), *sending)

    async def flush(self) -> None:
        """Send all that is counted; what can't be sent stays for the next time, up to an hour."""
        while self._sending is not None or self._open:
            async with self._asking:
                if not await self._send_next():
                    return

    async def _send_on(self) -> None:
        is_last = False
        while not is_last:
            await self._counted.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), FLUSH_S)
            is_last = self._closing.is_set()
            self._counted.clear()
            await self.flush()

    async def _send_next(self) -> bool:
        """Send one batch, the one that failed before first; whether that went well."""
        if self._sending is None:
            step, cells = next(iter(self._open.items()))
            del self._open[step]
            self._number += 1
            self._sending = _Batch(number=self._number, step=step, cells=cells)
        if self._sending.step > self._step() - STEPS * MINUTES:
            try:
                await self._send(self._sending)
            except StoreUnavailable:
                self._counted.set()
                self._forget_oldest()
                return False
            self._known_until_s = -1.0
            self._known_minutes.pop(self._sending.step // STEPS, None)
        self._sending = None
        return True

    async def _send(self, batch: _Batch) -> None:
        keys = (f"{self._base}s:{batch.step}", f"{self._base}m:{batch.step // STEPS}")
        lives_ms = ((STEP_S * STEPS + _LATE_S) * 1000, (60 * MINUTES + _LATE_S) * 1000)
        fields = (each for (caller, column), number in batch.cells.items() for each in (f"{caller}:{column}", number))
        await self._add(keys, (self._replica, batch.number, *lives_ms, *fields))

    def _forget_oldest(self) -> None:
        """Keep an hour's steps at most."""
        for step in tuple(islice(self._open, max(len(self._open) - STEPS * MINUTES, 0))):
            del self._open[step]

    def _step(self) -> int:
        return int(self._clock() // STEP_S)


def _counts(hashes: Iterable[list[bytes]]) -> dict[Cell, int]:
    """The sum of hashes as Redis tells them: field and value in turn. Fields of other columns are left out."""
    sums: dict[Cell, int] = {}
    for fields in hashes:
        for field, value in zip(fields[::2], fields[1::2], strict=True):
            caller, _, column = field.decode(errors="replace").rpartition(":")
            if column in COLUMNS:
                sums[caller, column] = sums.get((caller, column), 0) + int(value)
    return sums


def _rows(cells: Mapping[Cell, int]) -> dict[str, Counts]:
    return {name: _row(cells, name) for name in dict.fromkeys(caller for caller, _ in cells)}


def _add_rows(sums: dict[str, Counts], rows: Mapping[str, Counts]) -> None:
    for name, counts in rows.items():
        sums[name] = sums[name] + counts if name in sums else counts


def _tallied(minute: Mapping[str, Counts], minutes: Iterable[Mapping[str, Counts]]) -> dict[str, Tally]:
    hour: dict[str, Counts] = {}
    for rows in minutes:
        _add_rows(hour, rows)
    none = Counts()
    return {name: Tally(minute=minute.get(name, none), hour=hour.get(name, none)) for name in (hour | dict(minute))}


def _row(cells: Mapping[Cell, int], caller: str) -> Counts:
    return Counts(**{column: cells.get((caller, column), 0) for column in COLUMNS})


def _summed(parts: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    def rows() -> Iterator[tuple[str, Tally]]:
        for part in parts:
            yield from part.items()

    sums: dict[str, Tally] = {}
    for caller, tally in rows():
        sums[caller] = sums[caller] + tally if caller in sums else tally
    return sums
