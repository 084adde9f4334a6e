"""Each caller's usage of an app, over all replicas, kept in Redis: by minute for an hour, by hour for a week.

Counting only adds in memory. A task of the store sends the sums, at most once a second, as one batch for each ten
seconds of time; a batch that may have arrived is resent under its number, and counted once.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import msgspec

from service.model.budgets import COLUMNS, CallResults, Counts, RecentCalls, UsageCounts, WorstWindows
from service.model.calls import CallKind
from service.model.errors import StoreUnavailable
from service.store.interfaces import Script, Store
from service.upstream.verdicts import OK
from service.usage.buckets import (
    CALLS,
    LAST_SUCCESS,
    LATE_S,
    READ,
    RESULTS,
    TimeBuckets,
    UsageBook,
    UsageCell,
    added,
    booked,
    read_books,
)

STEP_S = 10
"""The resolution is ten seconds in the last minute, a minute in the last hour, an hour in the last week."""
STEPS = 6
MINUTES = 60
HOURS = 7 * 24
CALLERS_MAX = 1_000
"""How many callers one replica distinguishes in one step of time; any others count as OVERFLOW."""
OVERFLOW = "~more"
FLUSH_S = 1.0
"""The shortest time between two batches, and the maximum age of the sums shown."""

# KEYS: where to add the batch. ARGV: the replica, the batch's number, how many of the fields and numbers apply to all
# keys, then each key's time to live (ms), then fields and numbers alternately; the rest apply to the first key only. A
# key that has seen this batch number from this replica is not added to again. For NEWEST fields the maximum is kept. A
# key that is not a hash, or a value that is not a number, starts again.
_ADD = """
local seen_by, fields = '#' .. ARGV[1], 4 + #KEYS
for i, key in ipairs(KEYS) do
  local text = redis.pcall('HGET', key, seen_by)
  if type(text) == 'table' then
    if not string.find(text.err, 'WRONGTYPE') then return text end
    redis.call('DEL', key)
  end
  local seen = type(text) == 'string' and tonumber(text) or -1
  if seen < tonumber(ARGV[2]) then
    for j = fields, i == 1 and #ARGV or fields + ARGV[3] - 1, 2 do
      if string.sub(ARGV[j], 1, 1) ~= '^' then
        local sum = redis.pcall('HINCRBY', key, ARGV[j], ARGV[j + 1])
        if type(sum) == 'table' then
          if not string.find(sum.err, 'integer') and not string.find(sum.err, 'overflow') then return sum end
          redis.call('HSET', key, ARGV[j], ARGV[j + 1])
        end
      elseif (tonumber(redis.call('HGET', key, ARGV[j]) or '0') or 0) < tonumber(ARGV[j + 1]) then
        redis.call('HSET', key, ARGV[j], ARGV[j + 1])
      end
    end
    redis.call('HSET', key, seen_by, ARGV[2])
    redis.call('PEXPIRE', key, ARGV[3 + i])
  end
end
return {#KEYS}
"""


class _Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one step of time: by caller, and calls by window of the clock."""

    number: int
    step: int
    cells: dict[UsageCell, int]
    calls: dict[UsageCell, int]


class UsageStore:
    """The counts of one kind of an app's calls, for all columns of `Counts`. Runs from `start` to `aclose`.

    `clock` is the shared clock in seconds; `monotonic_s` measures the age of what was read. A batch that cannot be sent
    for an hour is lost, as are up to a second's counts of a replica that dies.
    """

    def __init__(
        self,
        store: Store,
        *,
        prefix: str,
        app: str,
        kind: CallKind = CallKind.LIST,
        replica: str,
        clock: Callable[[], float],
        window_s: float = 1.0,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._add: Script = store.script(_ADD)
        self._read: Script = store.script(READ)
        self._base = f"{prefix}:{{{app}}}:{kind.key_part}usage_store:"
        self._replica = replica
        self._clock = clock
        self._window_s = window_s
        self._monotonic_s = monotonic_s
        self._open: dict[int, _Batch] = {}
        self._sending: _Batch | None = None
        self._number = 0
        self._last_minute = self._last_hour = UsageBook()
        self._minutes = TimeBuckets(self._read, base=f"{self._base}m:", length_s=60, kept=MINUTES)
        self._hours = TimeBuckets(self._read, base=f"{self._base}h:", length_s=3600, kept=HOURS)
        self._asking = asyncio.Lock()
        self._counted = asyncio.Event()
        self._closing = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start sending."""
        self._sender = asyncio.create_task(self._send_on())

    async def aclose(self) -> None:
        """Send the remaining counts, once, and stop."""
        self._closing.set()
        self._counted.set()
        if self._sender is not None:
            await self._sender

    def count(self, caller: str, column: str, number: int = 1) -> None:
        """Add to a column of the caller's, now. Does not wait or fail."""
        cells = self._batch().cells
        if (caller, column) not in cells and len(cells) >= CALLERS_MAX * len(COLUMNS):
            caller = OVERFLOW
        cells[caller, column] = cells.get((caller, column), 0) + number
        self._counted.set()

    def count_call(self, caller: str) -> None:
        """Count a call that has begun in the caller's turn, now."""
        calls, cell = self._batch().calls, (CALLS, str(int(self._clock() / self._window_s)))
        calls[cell] = calls.get(cell, 0) + 1
        self.count(caller, "turns")

    def count_result(self, caller: str, result: str) -> None:
        """Count the end of a call made in the caller's turn, now; `result` is one of upstream's `RESULTS`."""
        cells = self._batch().cells
        cells[RESULTS, result] = cells.get((RESULTS, result), 0) + 1
        if result == OK:
            cells[LAST_SUCCESS] = int(self._clock() * 1000)
            self._counted.set()
        else:
            self.count(caller, "failed")

    async def tallies(self) -> Mapping[str, UsageCounts]:
        """Return the last minute and hour of every caller: the last state read from Redis plus unsent counts.

        Bounded work: at most once a second, reads six ten-second steps and three minutes from Redis; the first time,
        every minute.
        """
        minute, hour = await self._minute_and_hour()
        none = Counts()
        return {
            name: UsageCounts(minute=minute.rows.get(name, none), hour=hour.rows.get(name, none))
            for name in {**hour.rows, **minute.rows}
        }

    async def worst(self) -> WorstWindows:
        """Return the largest number of calls in one window of the clock, in the last minute and hour."""
        _, hour = await self._minute_and_hour()
        calls = hour.calls
        begun = (self._clock() - 60) // self._window_s
        minute = max((number for window, number in calls.items() if window > begun), default=0)
        return WorstWindows(minute=minute, hour=max(calls.values(), default=0))

    async def recent_calls(self) -> RecentCalls:
        """Return how the calls of the last minute and hour ended, and when the last one succeeded."""
        minute, hour = await self._minute_and_hour()
        last_success_ms = hour.last_success_ms
        if not last_success_ms:
            async with self._asking:
                await self._refresh(self._hours)
            last_success_ms = added(self._hours.books.values()).last_success_ms
        return RecentCalls(minute=_results_of(minute), hour=_results_of(hour), last_success_ms=last_success_ms or None)

    async def _minute_and_hour(self) -> tuple[UsageBook, UsageBook]:
        """Return the counts of the last minute and hour: the last state read from Redis plus unsent counts."""
        async with self._asking:
            await self._refresh(self._minutes)
            begun = self._step() - STEPS
            recent = (batch for batch in self._batches() if batch.step > begun)
            return (
                added((self._last_minute, *map(_book_of, recent))),
                added((self._last_hour, *map(_book_of, self._batches()))),
            )

    async def minutes(self) -> Mapping[int, UsageBook]:
        """Return the last hour by minute, numbered since the epoch; a minute without any count may be missing."""
        return await self._by_period(self._minutes)

    async def hours(self) -> Mapping[int, UsageBook]:
        """Return the last week by hour, numbered since the epoch; an hour without any count may be missing."""
        return await self._by_period(self._hours)

    async def _by_period(self, periods: TimeBuckets) -> Mapping[int, UsageBook]:
        async with self._asking:
            await self._refresh(periods)
            books = dict(periods.books)
            for batch in self._batches():
                number = batch.step * STEP_S // periods.length_s
                books[number] = added((books.get(number, UsageBook()), _book_of(batch)))
        return books

    async def _refresh(self, periods: TimeBuckets) -> None:
        """Read from Redis, unless that was done within the last second."""
        now_s = self._monotonic_s()
        if now_s < periods.known_until_s:
            return
        periods.known_until_s = now_s + FLUSH_S
        step = self._step()
        with contextlib.suppress(StoreUnavailable):
            await periods.look(step * STEP_S // periods.length_s)
            if periods is self._minutes:
                keys = [f"{self._base}s:{step - back}" for back in range(STEPS)]
                self._last_minute = added(await read_books(self._read, keys))
                self._last_hour = added(periods.books.values())

    def _batches(self) -> Iterator[_Batch]:
        """Yield the batches that may not have reached Redis yet."""
        yield from self._open.values()
        if self._sending is not None:
            yield self._sending

    async def flush(self) -> None:
        """Send all counts; keep those that cannot be sent for the next time, up to an hour."""
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
        """Send one batch, starting with one that failed before; return whether that succeeded."""
        if self._sending is None:
            self._sending = self._open.pop(next(iter(self._open)))
        if self._sending.step > self._step() - STEPS * MINUTES:
            try:
                await self._send(self._sending)
            except StoreUnavailable:
                self._counted.set()
                self._forget_oldest()
                return False
            for periods in (self._minutes, self._hours):
                periods.forget(self._sending.step * STEP_S // periods.length_s)
        self._sending = None
        return True

    async def _send(self, batch: _Batch) -> None:
        at_s = batch.step * STEP_S
        kept = (self._minutes, self._hours)
        keys = (*(each.key(at_s // each.length_s) for each in kept), f"{self._base}s:{batch.step}")
        lives_ms = (*(each.lives_ms for each in kept), (STEP_S * STEPS + LATE_S) * 1000)
        fields = (_fields(batch.cells), _fields(batch.calls))
        await self._add(keys, (self._replica, batch.number, len(fields[0]), *lives_ms, *fields[0], *fields[1]))

    def _forget_oldest(self) -> None:
        """Keep at most one hour of steps."""
        for step in tuple(islice(self._open, max(len(self._open) - STEPS * MINUTES, 0))):
            del self._open[step]

    def _batch(self) -> _Batch:
        """Return the batch for the current step of time."""
        step = self._step()
        if step not in self._open:
            self._number += 1
            self._open[step] = _Batch(number=self._number, step=step, cells={}, calls={})
        return self._open[step]

    def _step(self) -> int:
        return int(self._clock() // STEP_S)


def _book_of(batch: _Batch) -> UsageBook:
    return booked(batch.cells | batch.calls)


def _results_of(book: UsageBook) -> CallResults:
    return CallResults(
        ok=book.results.get(OK, 0), failed={name: number for name, number in sorted(book.results.items()) if name != OK}
    )


def _fields(cells: Mapping[UsageCell, int]) -> list[str | int]:
    return [each for (caller, column), number in cells.items() for each in (f"{caller}:{column}", number)]
