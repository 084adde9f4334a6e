"""The queue inside one replica: who waits for which block, first come first served per caller. No I/O, no clock."""

import asyncio
from enum import Enum, auto

from service.budget.line.jobs import Fetched, Job, TooLong
from service.budget.scheduler.interfaces import WaitingCount
from service.model.origin import NOBODY, Origin


class BlockState(Enum):
    """How far a queued block has come."""

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


class Waiter:
    """One request that waits for one block; its answer is put into `future`. Times are loop time, in seconds."""

    __slots__ = ("background", "caller", "deadline_s", "entered_s", "future", "job", "judged", "origin", "weight")

    def __init__(
        self,
        job: Job,
        future: "asyncio.Future[Fetched | TooLong]",
        *,
        caller: str,
        weight: float,
        entered_s: float,
        patience_s: float,
        origin: Origin = NOBODY,
        background: bool = False,
    ) -> None:
        self.job = job
        self.future = future
        self.caller = caller
        self.weight = weight
        self.entered_s = entered_s
        self.deadline_s = entered_s + patience_s
        self.judged = False
        self.origin = origin
        self.background = background


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


class QueuedBlock:
    """A block that someone on this replica waits for.

    `job` fetches it and looks for it; `known` is the head of the stored value that this replica has seen last.
    `attempts` counts the calls and `joins` the fetches elsewhere, `asked_s` is when `begin` was last sent, and
    `is_stirred` says that a fetch of the block has ended somewhere since.
    """

    __slots__ = (
        "asked_s",
        "attempts",
        "is_stirred",
        "job",
        "joins",
        "key",
        "known",
        "places",
        "state",
        "turned_for",
        "waiters",
    )

    def __init__(self, job: Job) -> None:
        self.job = job
        self.key = job.block_key
        self.known = job.known
        self.places: dict[str, Place] = {}
        self.waiters: dict[Waiter, None] = {}
        self.state = BlockState.WAITING
        self.turned_for: str | None = None
        self.attempts = 0
        self.joins = 0
        self.asked_s = 0.0
        self.is_stirred = False

    def counts_for(self, caller: str) -> bool:
        """Whether the caller's place still needs a turn."""
        if self.state is BlockState.WAITING:
            return True
        return self.state is BlockState.TURNED and self.turned_for == caller


class Queue:
    """All blocks of one app that are waited for on this replica, and each caller's line of them."""

    def __init__(self) -> None:
        self.blocks: dict[str, QueuedBlock] = {}
        self._lines: dict[str, dict[str, QueuedBlock]] = {}

    def holds(self, block: QueuedBlock) -> bool:
        """Whether somebody still waits for the block."""
        return self.blocks.get(block.key) is block

    def held_by(self, caller: str) -> int:
        """How many places the caller has."""
        return len(self._lines.get(caller, ()))

    def enter(self, block: QueuedBlock, *, caller: str, weight: float, now_s: float, background: bool = False) -> None:
        """Give the caller a place for the block, at the end of its own line, unless it has one."""
        self.blocks.setdefault(block.key, block)
        if caller not in block.places:
            block.places[caller] = Place(caller=caller, weight=weight, entered_s=now_s, background=background)
            self._lines.setdefault(caller, {})[block.key] = block

    def leave(self, block: QueuedBlock, caller: str) -> None:
        """Take the caller's place away; a block that nobody waits for any more is forgotten."""
        if block.places.pop(caller, None) is not None:
            line = self._lines[caller]
            del line[block.key]
            if not line:
                del self._lines[caller]
        if not block.places and self.holds(block):
            del self.blocks[block.key]

    def close(self, block: QueuedBlock) -> None:
        """Take all places of a block away: it has come, or never will."""
        for caller in tuple(block.places):
            self.leave(block, caller)

    def next_for(self, caller: str) -> QueuedBlock | None:
        """Return the block that the caller has waited for longest and that no turn is in use for."""
        line = self._lines.get(caller, {})
        return next((block for block in line.values() if block.state is BlockState.WAITING), None)

    def position(self, block: QueuedBlock, caller: str) -> int:
        """Return the place of the block in the caller's own line, counted from 1."""
        position = 0
        for other in self._lines.get(caller, {}).values():
            position += other.counts_for(caller)
            if other is block:
                break
        return max(position, 1)

    def report(self, *, now_s: float) -> tuple[WaitingCount, ...]:
        """For each caller that needs turns: how many, and since when."""
        rows: list[WaitingCount] = []
        for caller, line in self._lines.items():
            needing = [block.places[caller] for block in line.values() if block.counts_for(caller)]
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
