"""What has become of one replica's turns, counted for those who watch."""

from collections import Counter

from service.budget.scheduler.interfaces import AlreadyStored, Beginning, Begun, Joined, Paused

TURN_ENDS = ("used", "joined", "known", "paused", "lapsed", "returned", "lost")
"""What becomes of a turn: used for a call; refunded, for the block was being fetched, had come, or the upstream paused;
lapsed or given back unused; lost with an answer of Redis."""


class TurnTally:
    """How many turns ended how, by caller and word of TURN_ENDS. As many entries as callers and words."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[str, str]] = Counter()

    def returned(self, caller: str) -> None:
        """A turn was given back: nobody needed it any more."""
        self.ends[caller, "returned"] += 1

    def lost(self, caller: str) -> None:
        """Whether the turn was taken is not known."""
        self.ends[caller, "lost"] += 1

    def began(self, caller: str, answer: Beginning | None) -> None:
        """A turn has begun, or not; None where it was given back before."""
        match answer:
            case Begun():
                end = "used"
            case Joined():
                end = "joined"
            case AlreadyStored():
                end = "known"
            case Paused():
                end = "paused"
            case None:
                end = "returned"
            case _:
                end = "lapsed"
        self.ends[caller, end] += 1
