"""What to list (a query), the requested part of it (a slice), and the moments that bound it."""

import re
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import assert_never

import msgspec

EARLIEST_S = 0
_FIRST_S = -62_135_596_800
_DAY_S = 86_400
LATEST_S = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


class Sort(StrEnum):
    """The order of a list; a leading minus means descending."""

    SCHEDULED = "scheduled_at"
    SCHEDULED_DESC = "-scheduled_at"
    CREATED = "created_at"
    CREATED_DESC = "-created_at"


class At(msgspec.Struct, frozen=True, kw_only=True):
    """An absolute moment, in whole seconds since 1970-01-01T00:00:00Z."""

    epoch_s: int

    def __str__(self) -> str:
        return rfc3339(self.epoch_s)


class FromNow(msgspec.Struct, frozen=True, kw_only=True):
    """A moment relative to the time of the fetch, in seconds; negative means before."""

    offset_s: int

    def __str__(self) -> str:
        sign = "-" if self.offset_s < 0 else ""
        days, seconds = divmod(abs(self.offset_s), _DAY_S)
        return f"{sign}P{days}DT{seconds}S" if seconds else f"{sign}P{days}D"


Moment = At | FromNow


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """A time range as the upstream gets it, in whole seconds since the epoch, both ends included."""

    since_s: int
    until_s: int


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What to list, without paging. Equal queries share blocks.

    Relative moments are part of a query's identity as written and become a `Range` only when a block is fetched, so
    that a block of `-P7D` can still be served stale after the clock has moved on.
    """

    app: str
    since: Moment
    until: Moment
    sort: Sort = Sort.SCHEDULED_DESC
    keyword: str | None = None

    @property
    def identity(self) -> str:
        """A text that is equal for equal queries only."""
        return "\n".join((str(self.since), str(self.until), self.sort, self.keyword or ""))

    @property
    def is_absolute(self) -> bool:
        """Whether the range is the same whenever it is fetched."""
        return isinstance(self.since, At) and isinstance(self.until, At)

    def range_at(self, now_s: float, *, align_s: int) -> Range:
        """Return the range to send at `now_s`; relative ends count from the last multiple of `align_s`."""
        aligned_s = int(now_s) // align_s * align_s
        return Range(since_s=_resolve(self.since, aligned_s), until_s=_resolve(self.until, aligned_s))


class Slice(msgspec.Struct, frozen=True, kw_only=True):
    """The requested page: `limit` records from `offset` on."""

    offset: int
    limit: int

    def blocks(self, block_size: int) -> range:
        """Return the indexes of the aligned blocks that hold the slice."""
        return range(self.offset // block_size, (self.offset + self.limit - 1) // block_size + 1)


def _resolve(moment: Moment, now_s: int) -> int:
    match moment:
        case At(epoch_s=epoch_s):
            return epoch_s
        case FromNow(offset_s=offset_s):
            return min(max(now_s + offset_s, EARLIEST_S), LATEST_S)
    assert_never(moment)


_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_INSTANT = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII)
_DURATION = re.compile(
    r"([+-]?)P(?!$)(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?!$)(?:(\d{1,8})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?",
    re.ASCII,
)


NOW = "now"


def parse_until(text: str) -> Moment:
    """Parse the end of a range: like `parse_moment`, but a date means its last second. Raise ValueError."""
    moment = parse_moment(text)
    if isinstance(moment, At) and _DATE.fullmatch(text):
        return At(epoch_s=moment.epoch_s + _DAY_S - 1)
    return moment


def parse_moment(text: str) -> Moment:
    """Parse an RFC 3339 instant, a date (its first second, UTC), `now`, or a signed ISO 8601 duration from now.

    Raise ValueError with a text for the caller. Months and years of a duration are rejected: they have no fixed length.
    """
    if text == NOW:
        return FromNow(offset_s=0)
    if _DATE.fullmatch(text):
        return At(epoch_s=_epoch(_parsed_date(text), "00:00:00", "Z"))
    if instant := _INSTANT.fullmatch(text):
        day, time, offset = instant.groups()
        if offset is None:
            raise ValueError("an instant needs an offset, such as Z or +02:00")
        return At(epoch_s=_epoch(_parsed_date(day), time, offset))
    if duration := _DURATION.fullmatch(text):
        sign, *parts = duration.groups()
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in parts)
        total_s = (weeks * 7 + days) * _DAY_S + hours * 3_600 + minutes * 60 + seconds
        if total_s > LATEST_S:
            raise ValueError("a duration this long leaves the calendar")
        return FromNow(offset_s=-total_s if sign == "-" else total_s)
    if _holds_decoded_plus(text):
        raise ValueError("holds a space where a plus sign belongs: encode the plus sign as %2B")
    raise ValueError(
        "neither an instant (2026-05-01T08:00:00Z), a date (2026-05-01), now, nor a duration from now "
        "in weeks, days, hours, minutes and seconds (-P7D, PT12H)"
    )


def _holds_decoded_plus(text: str) -> bool:
    """Return whether the text would be a moment with `+` for its last space: query strings decode `+` as a space."""
    start, space, end = text.rpartition(" ")
    mended = f"{start}+{end}"
    return bool(space and (_INSTANT.fullmatch(mended) or _DURATION.fullmatch(mended)))


def _parsed_date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as exc:
        raise ValueError("no such day in the calendar") from exc


def _epoch(day: date, time: str, offset: str) -> int:
    hour, minute, second = (int(part) for part in time.split(":"))
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError("no such time of day")
    shift = timedelta()
    if offset not in "Zz":
        shift_h, shift_m = int(offset[1:3]), int(offset[4:6])
        if shift_h > 23 or shift_m > 59:
            raise ValueError("no such offset from UTC")
        shift = timedelta(hours=shift_h, minutes=shift_m) * (-1 if offset[0] == "-" else 1)
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
    # RFC 3339 section 5.6 allows second 60; the upstream knows no leap seconds, so it is the next second.
    epoch_s = int(midnight) + hour * 3_600 + minute * 60 + second - int(shift.total_seconds())
    if not EARLIEST_S <= epoch_s <= LATEST_S:
        raise ValueError("only moments from 1970 to 9999 can be listed")
    return epoch_s


def is_moment(epoch_s: int) -> bool:
    """Return whether the calendar covers this time: the years 1 to 9999."""
    return _FIRST_S <= epoch_s <= LATEST_S


def rfc3339(epoch_s: int) -> str:
    """Format whole seconds since the epoch as an RFC 3339 instant in UTC."""
    return datetime.fromtimestamp(epoch_s, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
