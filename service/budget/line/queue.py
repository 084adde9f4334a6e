"""The queue within one replica: requests by caller and block, first come first served per caller. No I/O, no clock."""

import asyncio
from enum import Enum, auto

from service.budget.line.jobs import Fetched, Job, TooLong
from service.budget.scheduler.interfaces import WaitingCount
from service.model.origin import NOBODY, Origin


class BlockState(Enum):
    """The progress of a queued block."""

    WAITING = auto()
    """All of its places wait for a turn."""
    TURNED = auto()
    """One of its callers has a turn that is not yet in use."""
    BEGINNING = auto()
    """The turn is being used: `begin` has been sent to the scheduler."""
    CALLING = auto()
    """This replica is fetching it."""
    ELSEWHERE = auto()
    """Another replica is fetching it."""


class Waiter:
    """One request that waits for one block; `future` receives its answer. Times are loop time, in seconds.

    `called_s` is the time of the calls for its block that have ended meanwhile. A `background` request gets a turn only
    while nothing else waits.
    """

    __slots__ = (
        "background",
        "called_s",
        "caller",
        "deadline_s",
        "entered_s",
        "future",
        "job",
        "judged",
        "origin",
        "weight",
    )

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
        self.called_s = 0.0


class QueuedBlock:
    """A block that at least one request on this replica waits for.

    All requests of one caller for the block share one of its `places`: that of the first, which may have left since.
    `job` fetches and looks up the block; `known` is the head of the stored value that this replica last saw. `attempts`
    counts the calls and `joins` the fetches elsewhere, `asked_s` is when `begin` was last sent, `called_at_s` when the
    call under way began, and `is_stirred` is set if a fetch of the block has ended somewhere since.
    """

    __slots__ = (
        "asked_s",
        "attempts",
        "called_at_s",
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
        self.places: dict[str, Waiter] = {}
        self.waiters: dict[Waiter, None] = {}
        self.state = BlockState.WAITING
        self.turned_for: str | None = None
        self.attempts = 0
        self.joins = 0
        self.asked_s = 0.0
        self.called_at_s: float | None = None
        self.is_stirred = False

    def counts_for(self, caller: str) -> bool:
        """Return whether the caller's place still needs a turn."""
        if self.state is BlockState.WAITING:
            return True
        return self.state is BlockState.TURNED and self.turned_for == caller


class Queue:
    """All blocks of one app that requests on this replica wait for, and each caller's line of them."""

    def __init__(self) -> None:
        self.blocks: dict[str, QueuedBlock] = {}
        self._lines: dict[str, dict[str, QueuedBlock]] = {}

    def holds(self, block: QueuedBlock) -> bool:
        """Return whether any request still waits for the block."""
        return self.blocks.get(block.key) is block

    def held_by(self, caller: str) -> int:
        """Return the number of places that the caller has."""
        return len(self._lines.get(caller, ()))

    def enter(self, block: QueuedBlock, waiter: Waiter) -> None:
        """Add a place for the block to the end of the caller's own line, unless it already has one."""
        self.blocks.setdefault(block.key, block)
        if waiter.caller not in block.places:
            block.places[waiter.caller] = waiter
            self._lines.setdefault(waiter.caller, {})[block.key] = block

    def leave(self, block: QueuedBlock, caller: str) -> None:
        """Remove the caller's place; drop the block if no other caller waits for it."""
        if block.places.pop(caller, None) is not None:
            line = self._lines[caller]
            del line[block.key]
            if not line:
                del self._lines[caller]
        if not block.places and self.holds(block):
            del self.blocks[block.key]

    def close(self, block: QueuedBlock) -> None:
        """Remove all places of a block that has arrived or never will."""
        for caller in tuple(block.places):
            self.leave(block, caller)

    def next_for(self, caller: str) -> QueuedBlock | None:
        """Return the block for which the caller has waited longest and for which no turn is in use."""
        line = self._lines.get(caller, {})
        return next((block for block in line.values() if block.state is BlockState.WAITING), None)

    def first(self) -> tuple[str, QueuedBlock] | None:
        """Return the caller that has waited longest, and its block to be fetched next; the background last."""
        found = None
        for caller in self._lines:
            block = self.next_for(caller)
            if block is not None:
                if not block.places[caller].background:
                    return caller, block
                found = found or (caller, block)
        return found

    def position(self, block: QueuedBlock, caller: str) -> int:
        """Return the block's position in the caller's own line, counted from 1."""
        position = 0
        for other in self._lines.get(caller, {}).values():
            position += other.counts_for(caller)
            if other is block:
                break
        return max(position, 1)

    def report(self, *, now_s: float) -> tuple[WaitingCount, ...]:
        """Return, for each caller that needs turns, how many it needs and since when."""
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
