"""Counts for whole minutes or hours, read from Redis step by step, and cached."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import cast

import msgspec

from service.model.budgets import COLUMNS, Counts
from service.model.queries import is_moment
from service.store.interfaces import Script

READ_MAX = 6
"""How many periods one script reads."""
LATE_S = 30
"""How much longer than necessary to keep keys, to allow for clock differences and late batches."""
CALLS = "@"
"""In place of a caller: calls per window of the clock, with the window's number as the column. Not a caller's name."""
RESULTS = "!"
"""In place of a caller: how many calls ended with each result, with the result as the column."""
NEWEST = "^"
"""In place of a caller: values of which the maximum counts, not the sum."""
LAST_SUCCESS = (NEWEST, "ok_ms")
"""When the last successful call ended, in milliseconds since the epoch."""

_NO_CALLERS = frozenset((CALLS, RESULTS, NEWEST))

UsageCell = tuple[str, str]
"""A caller and a column."""

DIGITS_MAX = 18
"""The most digits in a count; anything longer is invalid."""

READ = """
local all = {}
for i, key in ipairs(KEYS) do
  local fields = redis.pcall('HGETALL', key)
  all[i] = fields.err and {} or fields
end
return all
"""


class UsageBook(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a period: callers' rows, calls begun by window of the clock, and calls ended by result.

    `last_success_ms` is when the last call succeeded, 0 for never.
    """

    rows: Mapping[str, Counts] = {}
    calls: Mapping[int, int] = {}
    results: Mapping[str, int] = {}
    last_success_ms: int = 0


async def read_books(read: Script, keys: Iterable[str]) -> list[UsageBook]:
    """Return the counts under each key, a hash of `CALLER:COLUMN` to numbers; empty if missing. `read` runs READ."""
    hashes = cast("list[list[bytes]]", await read([*keys], ()))
    return [booked(_cells(each)) for each in hashes]


class TimeBuckets:
    """The last `kept` periods of `length_s` seconds, numbered since the epoch."""

    def __init__(self, read: Script, *, base: str, length_s: int, kept: int) -> None:
        self.length_s = length_s
        self.kept = kept
        self.books: Mapping[int, UsageBook] = {}
        """The state of Redis at the last read; a period without any count may be missing."""
        self.known_until_s = 0.0
        """When to read again, on a monotonic clock."""
        self._read = read
        self._base = base
        self._looks = 0

    @property
    def lives_ms(self) -> int:
        """Return how long a key is kept after its last addition."""
        return (self.length_s * self.kept + LATE_S) * 1000

    def key(self, number: int) -> str:
        """Return the key of a period."""
        return f"{self._base}{number}"

    async def look(self, now: int) -> None:
        """Read the periods that may have changed, up to the present one, and one of the others in rotation.

        Uses small scripts: reading a thousand callers at once would block Redis for half a second. Late additions by
        another replica to a past period appear when it is that period's turn. Raise StoreUnavailable.
        """
        self._looks += 1
        in_turn = now - 2 - self._looks % (self.kept - 2)
        known = {number: book for number, book in self.books.items() if now - self.kept < number < now - 1}
        known.pop(in_turn, None)
        missing = iter([number for number in range(now, now - self.kept, -1) if number not in known])
        while numbers := list(islice(missing, READ_MAX)):
            books = await read_books(self._read, [self.key(number) for number in numbers])
            known.update(zip(numbers, books, strict=True))
        self.books = known

    def forget(self, number: int) -> None:
        """Read this period again with the next read, which is due now."""
        self.known_until_s = 0.0
        self.books = {known: book for known, book in self.books.items() if known != number}


def booked(cells: Mapping[UsageCell, int]) -> UsageBook:
    """Return the cells as rows, ignoring unknown columns: a newer replica may count more than we know."""
    success_ms = cells.get(LAST_SUCCESS, 0)
    names = dict.fromkeys(caller for caller, column in cells if column in COLUMNS and caller not in _NO_CALLERS)
    return UsageBook(
        rows={name: _row(cells, name) for name in names},
        calls={int(window): n for (caller, window), n in cells.items() if caller == CALLS and _is_count(window)},
        results={result: number for (caller, result), number in cells.items() if caller == RESULTS},
        last_success_ms=success_ms if is_moment(success_ms // 1000) else 0,
    )


def added(books: Iterable[UsageBook]) -> UsageBook:
    """Return the sum of the counts."""
    rows: dict[str, Counts] = {}
    calls: dict[int, int] = {}
    results: dict[str, int] = {}
    last_success_ms = 0
    for book in books:
        for name, counts in book.rows.items():
            rows[name] = rows[name] + counts if name in rows else counts
        for window, number in book.calls.items():
            calls[window] = calls.get(window, 0) + number
        for result, number in book.results.items():
            results[result] = results.get(result, 0) + number
        last_success_ms = max(last_success_ms, book.last_success_ms)
    return UsageBook(rows=rows, calls=calls, results=results, last_success_ms=last_success_ms)


def _cells(fields: list[bytes]) -> dict[UsageCell, int]:
    """Parse a hash, given as alternating fields and values. A value that is not a number is ignored."""

    def cells() -> Iterator[tuple[UsageCell, int]]:
        for field, value in zip(fields[::2], fields[1::2], strict=True):
            caller, _, column = field.decode(errors="replace").rpartition(":")
            if caller and _is_count(value):
                yield (caller, column), int(value)

    return dict(cells())


def _is_count(text: str | bytes) -> bool:
    """Return whether the text is a whole number of a sensible length, in ASCII digits."""
    return text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX


def _row(cells: Mapping[UsageCell, int], caller: str) -> Counts:
    return Counts(**{column: cells.get((caller, column), 0) for column in COLUMNS})
