"""The budget of an app as its callers see it."""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from service.model.calls import CallKind


class BudgetNote(msgspec.Struct, frozen=True, kw_only=True):
    """A budget of the app as last seen: `calls` in `window_s`, `free` of them now, the next one free in `reset_s`.

    It is that of the calls of this `kind`.
    """

    kind: CallKind = CallKind.LIST
    calls: int
    window_s: float
    free: int
    reset_s: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Counters for one caller: each field is a column of the usage store, and a new one needs a default of 0.

    `turns` were used for a fetch, one per try; `failed` are calls without a result; `joined` are fetches saved by
    sharing another request's fetch. The rest count requests for tasks: all, those answered from storage when fresh or
    when stale, those that waited in line for their answer, and those refused a fetch.

    `watches` is how many watches were opened, `watched_s` how many seconds all were open, added up; `events` were sent
    to them, of which `resets` said that a list starts over.
    """

    turns: int = 0
    joined: int = 0
    requests: int = 0
    hits: int = 0
    stale: int = 0
    waits: int = 0
    refusals: int = 0
    failed: int = 0
    watches: int = 0
    watched_s: int = 0
    events: int = 0
    resets: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(  # added field by field: sums over an hour are computed while requests wait
            turns=self.turns + other.turns,
            joined=self.joined + other.joined,
            requests=self.requests + other.requests,
            hits=self.hits + other.hits,
            stale=self.stale + other.stale,
            waits=self.waits + other.waits,
            refusals=self.refusals + other.refusals,
            failed=self.failed + other.failed,
            watches=self.watches + other.watches,
            watched_s=self.watched_s + other.watched_s,
            events=self.events + other.events,
            resets=self.resets + other.resets,
        )


COLUMNS = Counts.__struct_fields__


class UsageCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counters for the last minute and the last hour, up to and including now."""

    minute: Counts = Counts()
    hour: Counts = Counts()

    def __add__(self, other: "UsageCounts") -> "UsageCounts":
        return UsageCounts(minute=self.minute + other.minute, hour=self.hour + other.hour)


class WorstWindows(msgspec.Struct, frozen=True, kw_only=True):
    """The most calls that began in one window of the clock (each second for a window of one), over all replicas.

    Counted when a call begins, by each replica's own clock: an independent check on the slots.
    """

    minute: int = 0
    hour: int = 0


def worst_window(times: Iterable[float], window: float) -> int:
    """Return the most times in any half-open window, all in one unit: two exactly a window apart don't share one."""
    ordered = sorted(times)
    worst = first = 0
    for last, time in enumerate(ordered):
        while time - ordered[first] >= window:
            first += 1
        worst = max(worst, last - first + 1)
    return worst


class CallerStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One caller, or all others combined (`name` None): how many blocks wait, the oldest's wait, and the usage."""

    name: str | None
    waiting: int = 0
    oldest_s: float = 0.0
    tally: UsageCounts = UsageCounts()


class UsageByCaller(msgspec.Struct, frozen=True, kw_only=True):
    """One caller's usage of an app within some period."""

    name: str
    counts: Counts


class UsageInPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The usage in the minute or hour from `start_s`, in seconds since the epoch."""

    start_s: int
    counts: Counts


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """The usage of one kind of an app's calls by caller and by time.

    It is that from `since_s` to `until_s`, in seconds since the epoch.
    `minutes` cover the last hour; `hours` cover the whole period if it begins before that. Both are without gaps, the
    current one last. `only` is the one caller whose usage this is, None for all. With `redis_away` it is what one
    replica knows.
    """

    app: str
    kind: CallKind = CallKind.LIST
    only: str | None
    redis_away: bool
    since_s: int
    until_s: int
    callers: tuple[UsageByCaller, ...]
    minutes: tuple[UsageInPeriod, ...]
    hours: tuple[UsageInPeriod, ...] = ()


class CallResults(msgspec.Struct, frozen=True, kw_only=True):
    """Outcomes of the upstream calls within some period: how many succeeded, and how many failed by result."""

    ok: int = 0
    failed: Mapping[str, int] = {}

    @property
    def failures(self) -> int:
        """The total number of failures."""
        return sum(self.failed.values())


class RecentCalls(msgspec.Struct, frozen=True, kw_only=True):
    """Calls of an app in the last minute and hour over all replicas, and when the last one succeeded.

    `last_success_ms` counts from the epoch; None if none succeeded within the week that is kept.
    """

    minute: CallResults = CallResults()
    hour: CallResults = CallResults()
    last_success_ms: int | None = None


ServingState = Literal["serving", "stale", "failing", "stopped", "paused", "redis-away"]
"""How an app is served: see `service.usage.app_condition`."""


class AppCondition(msgspec.Struct, frozen=True, kw_only=True):
    """How an app is being served, and a sentence that describes it."""

    state: ServingState
    detail: str


class BudgetView(msgspec.Struct, frozen=True, kw_only=True):
    """An app's budget for one kind of calls now: of `calls` slots, `free` could be used at once.

    `callers` are those that the requesting caller may see by name, itself first; `others` are all the rest combined.

    With `redis_away` this is what one replica knows: its own queue, usage up to the outage, and `calls` that it may
    grant by itself; `free` and `pause_s` are None if it may grant none.
    """

    app: str
    kind: CallKind = CallKind.LIST
    condition: AppCondition
    recent: RecentCalls
    redis_away: bool
    calls: int
    window_s: float
    free: int | None
    pause_s: float | None
    pause_reason: str
    worst: WorstWindows
    callers: tuple[CallerStanding, ...]
    others: CallerStanding
