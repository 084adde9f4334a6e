"""The line inside one replica: who waits for which block, first come first served for each caller. No I/O, no clock."""

from enum import Enum, auto
from typing import Generic, TypeVar

from service.budget.scheduler.interfaces import WaitingCount

T = TypeVar("T")


class BlockState(Enum):
    """How far a wanted block has come."""

    WAITING = auto()
    """Every place of it waits for a turn."""
    TURNED = auto()
    """One of its callers has a turn that is not yet used."""
    BEGINNING = auto()
    """The turn is being used: the scheduler has been asked."""
    CALLING = auto()
    """This replica fetches it."""
    ELSEWHERE = auto()
    """Another replica fetches it."""


class Place:
    """One caller's place in line for one block, shared by all its requests for that block.

    One in the `background` gets a turn only while nobody else waits.
    """

    __slots__ = ("background", "caller", "entered_s", "weight")

    def __init__(self, *, caller: str, weight: float, entered_s: float, background: bool = False) -> None:
        self.background = background
        self.caller = caller
        self.weight = weight
        self.entered_s = entered_s


class QueuedBlock(Generic[T]):
    """A block that someone on this replica waits for. `payload` is the driver's own.

    `attempts` counts its calls, `asked_s` is when the scheduler was last asked to begin one.
    """

    __slots__ = ("asked_s", "attempts", "block", "payload", "places", "state", "turned_for")

    def __init__(self, block: str, payload: T) -> None:
        self.block = block
        self.payload = payload
        self.places: dict[str, Place] = {}
        self.state = BlockState.WAITING
        self.turned_for: str | None = None
        self.attempts = 0
        self.asked_s = 0.0

    def counts_for(self, caller: str) -> bool:
        """Whether the caller's place is one that a turn is still needed for."""
        if self.state is BlockState.WAITING:
            return True
        return self.state is BlockState.TURNED and self.turned_for == caller


class Queue(Generic[T]):
    """All wanted blocks of one app on this replica, and each caller's line of them."""

    def __init__(self) -> None:
        self.wants: dict[str, QueuedBlock[T]] = {}
        self._lines: dict[str, dict[str, QueuedBlock[T]]] = {}

    def held_by(self, caller: str) -> int:
        """How many places the caller has."""
        return len(self._lines.get(caller, ()))

    def enter(
        self, want: QueuedBlock[T], *, caller: str, weight: float, now_s: float, background: bool = False
    ) -> None:
        """Give the caller a place for the block, at the end of its own line, unless it has one."""
        self.wants.setdefault(want.block, want)
        if caller not in want.places:
            want.places[caller] = Place(caller=caller, weight=weight, entered_s=now_s, background=background)
            self._lines.setdefault(caller, {})[want.block] = want

    def leave(self, want: QueuedBlock[T], caller: str) -> None:
        """Take the caller's place away; a block that nobody waits for any more is forgotten."""
        if want.places.pop(caller, None) is not None:
            line = self._lines[caller]
            del line[want.block]
            if not line:
                del self._lines[caller]
        if not want.places and self.wants.get(want.block) is want:
            del self.wants[want.block]

    def close(self, want: QueuedBlock[T]) -> None:
        """Take all places of a block away: it has come, or never will."""
        for caller in tuple(want.places):
            self.leave(want, caller)

    def next_for(self, caller: str) -> QueuedBlock[T] | None:
        """The block that the caller has waited for longest and that no turn is at work for."""
        line = self._lines.get(caller, {})
        return next((want for want in line.values() if want.state is BlockState.WAITING), None)

    def position(self, want: QueuedBlock[T], caller: str) -> int:
        """The place of the block in the caller's own line, counted from 1."""
        position = 0
        for other in self._lines.get(caller, {}).values():
            position += other.counts_for(caller)
            if other is want:
                break
        return max(position, 1)

    def report(self, *, now_s: float) -> tuple[WaitingCount, ...]:
        """For each caller that needs turns: how many, and since when."""
        rows: list[WaitingCount] = []
        for caller, line in self._lines.items():
            needing = [want.places[caller] for want in line.values() if want.counts_for(caller)]
            if needing:
                oldest = needing[0]
                waited_ms = int(max(now_s - oldest.entered_s, 0) * 1000)
                rows.append(
                    WaitingCount(
                        caller=caller,
                        weight=oldest.weight,
                        count=len(needing),
                        waited_ms=waited_ms,
                        background=all(place.background for place in needing),
                    )
                )
        return tuple(rows)
