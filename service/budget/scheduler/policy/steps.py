"""The three steps of the policy: tick, begin, done."""

from service.budget.scheduler.interfaces import (
    AlreadyStored,
    Beginning,
    Begun,
    Joined,
    Lapsed,
    Paused,
    Ticked,
    TickRequest,
    Turn,
    Wish,
)
from service.budget.scheduler.policy.callers import Demand
from service.budget.scheduler.policy.clock import settle
from service.budget.scheduler.policy.give import board_of, give, look
from service.budget.scheduler.policy.reports import take_off, take_report
from service.budget.scheduler.policy.slots import (
    end_flight,
    give_back,
    is_paused,
    may_give,
    next_at,
    return_turn,
    slot_of,
    take_all_slots,
    take_slot,
)
from service.budget.scheduler.policy.state import BudgetState, Flight, Reading, ReportRow, Slot

Granted = Begun | Joined | AlreadyStored
"""What a tick may answer to its wish."""


class Policy(BudgetState):
    """The state of one app's budget, and the steps that change it."""

    def tick(
        self,
        reading: Reading,
        replica: str,
        request: TickRequest,
        *,
        changed: frozenset[str] | None = None,
        stored: bytes = b"",
    ) -> Ticked:
        """See `Scheduler.tick`. Callers not in `changed` keep their time of entry; None means that all have changed.

        `stored` is the head of the wish's block as stored now, b"" for none.
        """
        settle(self, reading)
        for turn in request.returned:
            return_turn(self, turn, replica)
        report = take_report(self, replica, request.waiting, changed)
        if request.quiet:
            take_all_slots(self)
        begun = _grant(self, request.wish, replica, stored=stored)
        seen = None
        if request.wants_board or (report and may_give(self)):
            seen, begun = _give_due(self, request.wish, replica, begun, stored=stored)
        if begun is not None and not any(row.count for row in report.values()):
            del self.reports[replica]
        return self._ticked(replica, report, seen, begun, wants_board=request.wants_board)

    def _ticked(
        self,
        replica: str,
        report: dict[str, ReportRow],
        seen: Demand | None,
        begun: Granted | None,
        *,
        wants_board: bool,
    ) -> Ticked:
        """Return the answer to a tick: the replica's turns, and when it should tick again."""
        mine = [slot for slot in self.slots if slot.pending and slot.replica == replica]
        lefts = [
            (max(0, row.count - sum(slot.caller == caller for slot in mine)), row.background)
            for caller, row in report.items()
        ]
        left = sum(count for count, _ in lefts)
        urgent = sum(count for count, background in lefts if not background)
        pressing = max(urgent or left, seen.pressing if seen else 0)
        due = next_at(self, pressing, urgent=urgent > 0) - self.ahead_ms - self.now
        return Ticked(
            turns=tuple(
                Turn(id=slot.turn, caller=slot.caller, usable_in_ms=max(0, slot.usable_at - self.now)) for slot in mine
            ),
            due_in_ms=max(0, due) if left > 0 else None,
            free=sum(not slot.pending and slot.free_at <= self.now for slot in self.slots),
            pause_in_ms=max(0, self.pause_until - self.now),
            pause_reason=self.pause_reason if self.pause_until > self.now else "",
            board=board_of(self, seen) if wants_board and seen else None,
            begun=begun,
        )

    def begin(self, reading: Reading, replica: str, turn: int, *, block: str, known: bytes, stored: bytes) -> Beginning:
        """See `Scheduler.begin`; `stored` is the head of the block as stored now, b"" for none."""
        settle(self, reading)
        slot = slot_of(self, turn, replica)
        if slot is None or (not slot.pending and slot.block != block):
            end_flight(self, block, turn)
            return Lapsed()
        return _begin(self, slot, block, known=known, stored=stored)

    def done(
        self,
        reading: Reading,
        replica: str,
        turn: int,
        *,
        block: str,
        pause_ms: int,
        pause_reason: str,
        took_ms: int | None = None,
    ) -> None:
        """See `Scheduler.done`."""
        settle(self, reading)
        give_back(self, turn, replica, took_ms=took_ms)
        end_flight(self, block, turn)
        if pause_ms > 0 and self.now + pause_ms > self.pause_until:
            self.pause_until = self.now + pause_ms
            self.pause_reason = pause_reason


def _give_due(
    state: BudgetState, wish: Wish | None, replica: str, begun: Granted | None, *, stored: bytes
) -> tuple[Demand, Granted | None]:
    """Give all turns that are due, and use one for the wish, unless it has `begun`; if the wish did not need its turn,
    the next caller gets it."""
    seen = look(state)
    give(state, seen)
    if begun is None:
        begun = _grant(state, wish, replica, stored=stored)
        if begun is not None and not isinstance(begun, Begun):
            seen = look(state)
            give(state, seen)
    return seen, begun


def _grant(state: BudgetState, wish: Wish | None, replica: str, *, stored: bytes) -> Granted | None:
    """Begin the wish's fetch if the caller has a turn that the replica does not use; None if not."""
    if wish is None:
        return None
    for slot in state.slots:
        is_unused = slot.pending and slot.turn not in wish.in_use
        if is_unused and (slot.replica, slot.caller) == (replica, wish.caller) and not is_paused(state, slot):
            slot.turn = wish.turn
            answer = _begin(state, slot, wish.block, known=wish.known, stored=stored)
            return answer if isinstance(answer, (Begun, Joined, AlreadyStored)) else None
    return None


def _begin(state: BudgetState, slot: Slot, block: str, *, known: bytes, stored: bytes) -> Beginning:
    answer = _refusal(state, slot, state.flights.get(block), known=known, stored=stored)
    if answer is None:
        take_slot(state, slot, block)
        return Begun(usable_in_ms=slot.sent_at - state.now)
    return answer


def _refusal(state: BudgetState, slot: Slot, flight: Flight | None, *, known: bytes, stored: bytes) -> Beginning | None:
    other = flight if flight and flight.turn != slot.turn and flight.ends > state.now else None
    is_stored = slot.pending and stored not in {b"", known}
    if other or is_stored:
        if slot.pending:
            take_off(state, slot)
        give_back(state, slot.turn, slot.replica)
        if is_stored or other is None:
            return AlreadyStored(head=stored)
        return Joined(lease_in_ms=other.ends - state.now)
    if is_paused(state, slot):
        give_back(state, slot.turn, slot.replica)
        return Paused()
    return None
