"""The policy's state between two calls, and a call's reading of the clocks."""

import msgspec

from service.budget.scheduler.rules import Rules

SAME_MS = 20
"""Ignore differences in the oldest one's time of entry up to this: clock readings and rounding vary."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A call's reading of the time: the server's clock and run, and the replica's estimate.

    `seen_ms` is valid in `epoch` only, whose number includes the span. `ahead_ms` is how long before they are usable
    the replica must have its turns, see `Rules.ahead_for`. `chance` is a random number of up to 31 bits,
    above 0.
    """

    raw_ms: int
    run_id: str
    epoch: int
    seen_ms: int
    ahead_ms: int
    chance: int


class Slot(msgspec.Struct, kw_only=True):
    """One of the N slots. With a turn that has not begun (`begun_at` < 0), it lapses one lease after `usable_at`.

    A turn may begin before it is usable; its call is sent then, at `sent_at`.
    """

    free_at: int
    started: int
    turn: int = 0
    replica: str = ""
    caller: str = ""
    cost: float = 0.0
    usable_at: int = 0
    begun_at: int = -1
    block: str = ""

    @property
    def pending(self) -> bool:
        """Return whether the slot is held for a turn that has not begun."""
        return self.turn != 0 and self.begun_at < 0

    @property
    def sent_at(self) -> int:
        """Return when the call of a turn that has begun is sent."""
        return max(self.begun_at, self.usable_at)


class ReportRow(msgspec.Struct, kw_only=True):
    """One caller in a replica's report: how many blocks wait there, and since when the oldest does."""

    weight: float
    count: int
    since: int
    background: bool

    def is_same(self, other: "ReportRow") -> bool:
        """Return whether the rows are equal, apart from the differences of clock readings."""
        ours, theirs = ((row.weight, row.count, row.background) for row in (self, other))
        return ours == theirs and abs(self.since - other.since) <= SAME_MS


class Report(msgspec.Struct, kw_only=True):
    """A replica's report of its waiting callers, and until when it is valid."""

    expires: int
    rows: dict[str, ReportRow]


class Flight(msgspec.Struct, kw_only=True):
    """A fetch under way: its turn, and when other replicas give it up."""

    turn: int
    ends: int


class Tag(msgspec.Struct, kw_only=True):
    """A caller's position in virtual time, and whether it was waiting when last checked."""

    value: float
    active: bool


class BudgetState:
    """The state of one app's budget between two calls."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.ahead_ms = rules.ahead_ms
        self.forget()

    def forget(self) -> None:
        """Lose all state, as Redis does when it is flushed or restarted empty."""
        self.epoch = 0
        self.now = 0
        self.pause_until = 0
        self.pause_reason = ""
        self.clear()

    def clear(self) -> None:
        """Lose what a restart of Redis makes unreliable: all but the time and a pause."""
        self.raw = 0
        self.run_id = ""
        self.virtual = 0.0
        self.next_id = 0
        self.purge_at = 0
        self.held = 0.0
        self.slots: list[Slot] = []
        self.tags: dict[str, Tag] = {}
        self.reports: dict[str, Report] = {}
        self.flights: dict[str, Flight] = {}
