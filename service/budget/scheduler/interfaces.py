"""The port between a replica's line and the scheduler, and the values that cross it.

Two implementations pass the same suite: `RedisScheduler` (script/ in Redis) and `LocalScheduler` (policy/
alone). All times are milliseconds. Delays (`*_in_ms`) count from the moment of the answer.
"""

import math
from collections.abc import Callable
from typing import Protocol

import msgspec


class WaitingCount(msgspec.Struct, frozen=True, kw_only=True):
    """The number of blocks that one caller waits for on one replica, and how long the oldest has waited.

    `count` includes those for which the replica holds a turn that has not begun. A `background` caller gets a turn only
    while nothing else waits and another slot stays free.
    """

    caller: str
    weight: float
    count: int
    waited_ms: int
    background: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"weight of {self.caller} must be a finite number above 0, not {self.weight!r}")
        if self.count < 0 or self.waited_ms < 0:
            raise ValueError(f"count and waited_ms of {self.caller} must not be negative")


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's right to use one slot, from `usable_in_ms` until its lease ends."""

    id: int
    caller: str
    usable_in_ms: int


class Rank(msgspec.Struct, frozen=True, kw_only=True):
    """One waiting caller over all replicas; the smallest tag comes next."""

    caller: str
    count: int
    tag: float
    weight: float
    waited_ms: int
    background: bool = False


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """All waiting callers over all replicas; the virtual time; how long a slot is held beyond the window (ms)."""

    virtual: float
    held_ms: int
    ranks: tuple[Rank, ...]


class Ticked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a tick: this replica's unused turns, when to tick again, and the state of the app.

    `begun` is what `begin` answered to the tick's wish; None if no turn was available for it at once.

    `due_in_ms` is when to tick again because a turn may be given then; None if nothing on this replica waits except for
    turns that it already holds. `pause_in_ms` is the remaining time of the pause, 0 for none; `pause_reason` is its
    reason.
    """

    turns: tuple[Turn, ...]
    due_in_ms: int | None
    free: int
    pause_in_ms: int
    pause_reason: str
    board: Board | None
    begun: "Begun | Joined | AlreadyStored | None" = None

    def by_own_clock(self, wait_ms: Callable[[int], int]) -> "Ticked":
        """Return the answer with its waits shortened by `wait_ms`, see `ServerClock.wait_ms`."""
        begun = self.begun.by_own_clock(wait_ms) if isinstance(self.begun, Begun) else self.begun
        due_in_ms = None if self.due_in_ms is None else wait_ms(self.due_in_ms)
        return msgspec.structs.replace(self, due_in_ms=due_in_ms, begun=begun)


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """The slot is taken; send the call in `usable_in_ms`, no sooner."""

    usable_in_ms: int = 0

    def by_own_clock(self, wait_ms: Callable[[int], int]) -> "Begun":
        """See `Ticked.by_own_clock`."""
        return Begun(usable_in_ms=wait_ms(self.usable_in_ms))


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """Another fetch of the block is under way, for `lease_in_ms` at most. The turn is refunded."""

    lease_in_ms: int


class AlreadyStored(msgspec.Struct, frozen=True, kw_only=True):
    """Redis has a block whose `head` differs from the one the replica has seen: look it up. The turn is refunded.

    A `begin` with this head does not get this answer again until yet another block is stored.
    """

    head: bytes


class Lapsed(msgspec.Struct, frozen=True, kw_only=True):
    """The turn no longer belongs to this replica."""


class Paused(msgspec.Struct, frozen=True, kw_only=True):
    """The upstream has requested a pause, which the next tick reports. The turn is refunded."""


Beginning = Begun | Joined | AlreadyStored | Lapsed | Paused


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """A block to begin within the tick, if the caller has a turn there that this replica does not use yet.

    `in_use` are the turns that it does use. The turn then has the id `turn`, at least FIRST_WISH, so that it can be
    given back even if the answer is lost. For the other fields see `Scheduler.begin`.
    """

    turn: int
    in_use: tuple[int, ...]
    caller: str
    block: str
    known: bytes


FIRST_WISH = 2**52
"""Turns with smaller ids are numbered by the scheduler."""


class TickRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's report, with its requests.

    No call was made with a `returned` turn, nor will be. `quiet` takes all slots for one window: calls may have been
    made outside the shared budget. `wish` saves a call of `begin`; its block is counted in `waiting`.
    """

    waiting: tuple[WaitingCount, ...] = ()
    returned: tuple[int, ...] = ()
    quiet: bool = False
    wants_board: bool = False
    wish: Wish | None = None


class Scheduler(Protocol):
    """Gives out the turns of one app. Methods raise StoreUnavailable if it cannot be reached."""

    async def tick(self, request: TickRequest) -> Ticked:
        """Replace this replica's report, give back its returned turns and return its unused turns."""
        ...

    async def begin(self, turn: int, *, block: str, known: bytes) -> Beginning:
        """Use a turn for a fetch of `block`; it may be sent before the turn is usable.

        `block` is the block's key in Redis, `known` the head (`HEAD_BYTES`) of the value that the replica last saw
        there, b"" for none. If the key is gone, there is nothing to look up: the block is fetched. If the turn has
        already begun for the same block, renew the slot from now and return Begun. So `begin` may be repeated after a
        lost answer, or just before sending a call that was slow to connect. Begun, Joined and AlreadyStored take one
        from the replica's reported demand; Paused does not.
        """
        ...

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """End a fetch: the slot is free one window after its answer, and requests that wait for the block are woken.

        `took_ms` is the time from when the answered `begin` (or the tick with the wish) was sent until the upstream had
        answered; without it, the answer counts from now. A turn that has not begun is given back. A `pause_ms` above 0
        stops all turns of the app for that long.
        """
        ...
