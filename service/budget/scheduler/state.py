"""What the policy remembers between two calls, and what a call knows of the time."""

import msgspec


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What one call knows of the time: the server's clock and run, and what the replica's clock says.

    `seen_ms` holds in `epoch` alone, of which the number tells the span, too. `chance` is a random number of up to 31
    bits, above 0.
    """

    raw_ms: int
    run_id: str
    epoch: int
    seen_ms: int
    chance: int


class Slot(msgspec.Struct, kw_only=True):
    """One of the N. With a turn that has not begun (`begun_at` < 0) it lapses a lease after `usable_at`."""

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
        """Whether it is held for a turn that has not begun."""
        return self.turn != 0 and self.begun_at < 0


class ReportRow(msgspec.Struct, kw_only=True):
    """One caller of a replica's report: how many wait there, and since when the oldest does."""

    weight: float
    count: int
    since: int
    background: bool


class Report(msgspec.Struct, kw_only=True):
    """What a replica said of those who wait there, by caller, and until when that holds."""

    expires: int
    rows: dict[str, ReportRow]


class Flight(msgspec.Struct, kw_only=True):
    """A fetch under way: its turn, and when the others give it up."""

    turn: int
    ends: int


class Tag(msgspec.Struct, kw_only=True):
    """Where a caller stands in virtual time, and whether it waited when last looked at."""

    value: float
    active: bool
