"""The limits of one budget, and how they follow from the settings. All times are milliseconds."""

import msgspec

from service.model.calls import CallKind
from service.settings import AppSettings, BudgetSettings, UpstreamSettings

LARGEST = 86_400_000
LEAST = {
    "calls": 1,
    "window_ms": 1,
    "transit_ms": 0,
    "turn_lease_ms": 50,
    "fetch_lease_ms": 1,
    "report_lease_ms": 50,
    "ahead_ms": 0,
    "clock_step_ms": 1,
}


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one app's budget; times are whole ms. Raise ValueError naming a limit that cannot be kept.

    `calls` in any window of `window_ms`; a call reaches the upstream and is counted there within `transit_ms` of its
    `begin`. An unused turn lapses `turn_lease_ms` after it becomes usable; other replicas give a fetch up after
    `fetch_lease_ms`; a replica that has not ticked for `report_lease_ms` is dead. Turns are given up to `ahead_ms`
    before they are usable, and earlier if Redis is slow (see `ahead_for`). If the server's clock is ahead of what a
    replica's own server_clock vouches for by `clock_step_ms` or more, it has stepped and is not trusted. Redis must
    answer within this time: a smaller step cannot be distinguished from the network's delay, and passes for elapsed
    time.
    """

    calls: int
    window_ms: int
    transit_ms: int
    turn_lease_ms: int = 300
    fetch_lease_ms: int = 8_000
    report_lease_ms: int = 1_000
    ahead_ms: int = 25
    clock_step_ms: int = 250

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value > LARGEST:
                raise ValueError(f"{name} must be a whole number of at most {LARGEST}, not {value!r}")
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)!r}")
        if self.ahead_ms >= self.window_ms:
            raise ValueError(f"ahead_ms must be shorter than window_ms ({self.window_ms}), not {self.ahead_ms!r}")

    @property
    def rest_ms(self) -> int:
        """Return how long a slot rests between an answer and its next use: one window plus what rounding loses."""
        return self.window_ms + 1

    @property
    def gap_ms(self) -> int:
        """Return the shortest time between two starts under a backlog; for the factor see docs/adr/0003-turns.md."""
        return self.window_ms * 9 // (10 * self.calls)

    @property
    def ahead_max_ms(self) -> int:
        """Return the longest time before it is usable that a turn may be given, however slow Redis is."""
        return max(self.ahead_ms, self.window_ms // 4)

    @property
    def taken_ms(self) -> int:
        """Return how long a slot is taken from when its call is sent, if no answer comes."""
        return self.transit_ms + self.rest_ms

    @property
    def longest_ms(self) -> int:
        """Return the longest time that a slot may be taken from its `begin` if no answer comes: the call may be sent
        `ahead_max_ms` later. After a loss, all slots are taken for this long, because any may have begun just
        before."""
        return self.ahead_max_ms + self.taken_ms

    def ahead_for(self, round_trip_ms: float) -> int:
        """Return how early to give turns if a call to the scheduler takes `round_trip_ms`: a tick and a `begin` must
        fit in."""
        return min(self.ahead_ms + int(2 * round_trip_ms), self.ahead_max_ms)


def window_s_of(budget: BudgetSettings, kind: CallKind) -> float:
    """Return the window of the budgets for calls of this kind."""
    return budget.window_s if kind is CallKind.LIST else budget.get_window_s


def rules_of(budget: BudgetSettings, app: AppSettings, upstream: UpstreamSettings, kind: CallKind) -> Rules:
    """Return the rules of the app's budget for calls of this kind.

    Other replicas give a fetch up once its call must have ended.
    """
    window_s = window_s_of(budget, kind)
    calls = app.calls or budget.calls if kind is CallKind.LIST else app.get_calls or budget.get_calls
    return Rules(
        calls=calls,
        window_ms=round(window_s * 1000),
        transit_ms=round(budget.transit_s * 1000),
        turn_lease_ms=round(budget.turn_lease_s * 1000),
        ahead_ms=min(25, round(window_s * 250)),
        fetch_lease_ms=round((upstream.call_timeout_s + budget.transit_s) * 1000),
    )
