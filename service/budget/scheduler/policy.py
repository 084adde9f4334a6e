"""The policy of turns as a plain state machine: the same steps as script/, in Python.

Reads no clock and does no I/O. `LocalScheduler` runs on it, and tests use it as the oracle for the script. All times in
the state are milliseconds on a clock of its own that never goes back and never runs ahead.
"""

from service.budget.scheduler.demand import Demand, standing
from service.budget.scheduler.interfaces import (
    AlreadyStored,
    Beginning,
    Begun,
    Board,
    Joined,
    Lapsed,
    Paused,
    Rank,
    Rules,
    Ticked,
    Turn,
    WaitingCount,
    Wish,
)
from service.budget.scheduler.state import Flight, Reading, Report, ReportRow, Slot, Tag

BOARD_ROWS = 1_000
SPANS = 1024  # per epoch; an epoch's number is a multiple of this, plus the span's number
HELD_SHARE = 8  # a slot's held time is smoothed over about this many fetches


class Policy:
    """The state of one app's budget and its three steps: tick, begin, done."""

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
        self._clear()

    def _clear(self) -> None:
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

    # The three steps.

    def tick(
        self,
        reading: Reading,
        replica: str,
        waiting: tuple[WaitingCount, ...],
        *,
        returned: tuple[int, ...],
        quiet: bool,
        wants_board: bool,
        changed: frozenset[str] | None = None,
        wish: Wish | None = None,
        stored: bytes = b"",
    ) -> Ticked:
        """See `Scheduler.tick`. Callers not in `changed` keep their time of entry; None means that all have changed.

        `stored` is the head of the wish's block as stored now, b"" for none.
        """
        self._settle(reading)
        for turn in returned:
            self._return_turn(turn, replica)
        report = self._reported(replica, waiting, changed)
        if quiet:
            self._take_all()
        begun = self._grant(wish, replica, stored=stored)
        seen = None
        if wants_board or (report and self._may_give()):
            seen, begun = self._give_due(wish, replica, begun, stored=stored)
        mine = [slot for slot in self.slots if slot.pending and slot.replica == replica]
        lefts = [
            (max(0, row.count - sum(slot.caller == caller for slot in mine)), row.background)
            for caller, row in report.items()
        ]
        if begun is not None and not any(row.count for row in report.values()):
            del self.reports[replica]
        left = sum(count for count, _ in lefts)
        urgent = sum(count for count, background in lefts if not background)
        pressing = max(urgent or left, seen.pressing if seen else 0)
        due = self._next_at(pressing, urgent=urgent > 0) - self.ahead_ms - self.now
        return Ticked(
            turns=tuple(
                Turn(id=slot.turn, caller=slot.caller, usable_in_ms=max(0, slot.usable_at - self.now)) for slot in mine
            ),
            due_in_ms=max(0, due) if left > 0 else None,
            free=sum(not slot.pending and slot.free_at <= self.now for slot in self.slots),
            pause_in_ms=max(0, self.pause_until - self.now),
            pause_reason=self.pause_reason if self.pause_until > self.now else "",
            board=self._board(seen) if wants_board and seen else None,
            begun=begun,
        )

    def begin(self, reading: Reading, replica: str, turn: int, *, block: str, known: bytes, stored: bytes) -> Beginning:
        """See `Scheduler.begin`; `stored` is the head of the block as stored now, b"" for none."""
        self._settle(reading)
        slot = self._slot_of(turn, replica)
        flight = self.flights.get(block)
        if slot is None or (not slot.pending and slot.block != block):
            if flight and flight.turn == turn:
                del self.flights[block]
            return Lapsed()
        return self._begin(slot, block, known=known, stored=stored)

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
        self._settle(reading)
        self._give_back(turn, replica, took_ms=took_ms)
        flight = self.flights.get(block)
        if flight and flight.turn == turn:
            del self.flights[block]
        if pause_ms > 0 and self.now + pause_ms > self.pause_until:
            self.pause_until = self.now + pause_ms
            self.pause_reason = pause_reason

    def _reported(
        self, replica: str, waiting: tuple[WaitingCount, ...], changed: frozenset[str] | None
    ) -> dict[str, ReportRow]:
        """Replace the replica's report."""
        before = self.reports.pop(replica, None)
        rows = {}
        for each in waiting:
            if each.count:
                known = before.rows.get(each.caller) if before else None
                row = ReportRow(
                    weight=each.weight,
                    count=each.count,
                    since=self.now - each.waited_ms,
                    background=each.background,
                )
                is_changed = changed is None or each.caller in changed
                if known and (not is_changed or known.is_same(row)):
                    row.since = known.since
                rows[each.caller] = row
        if rows:
            self.reports[replica] = Report(expires=self.now + self.rules.report_lease_ms, rows=rows)
        return rows

    # The clock and expiry.

    def _settle(self, reading: Reading) -> None:
        rules = self.rules
        if reading.run_id != self.run_id:
            self._clear()
            self.epoch = reading.chance * SPANS
            self.next_id = reading.chance * 2**20
            self.run_id = reading.run_id
        else:
            self._advance(reading)
        self.raw = reading.raw_ms
        self.ahead_ms = reading.ahead_ms
        for slot in self.slots:
            slot.free_at = min(slot.free_at, self.now + rules.longest_ms)  # taken by one with a longer window
            if slot.pending and self.now >= slot.usable_at + rules.turn_lease_ms:
                self._refund(slot)
        while len(self.slots) > rules.calls:
            # Remove those that are free latest: the others continue if replicas with different numbers of slots take
            # turns.
            spare = min(self.slots, key=lambda slot: (slot.pending, -slot.free_at))
            if spare.pending:
                self._refund(spare)
            self.slots.remove(spare)
        while len(self.slots) < rules.calls:
            self.slots.append(Slot(free_at=self.now + rules.longest_ms, started=self.now))

    def _advance(self, reading: Reading) -> None:
        step_ms = self.rules.clock_step_ms
        is_known = reading.epoch // SPANS == self.epoch // SPANS
        seen = max(self.now, reading.seen_ms) if is_known else self.now
        by_clock = self.now + reading.raw_ms - self.raw
        if seen <= by_clock < seen + step_ms:
            self.now = by_clock
            if not is_known:
                self.epoch += (self.epoch + 1) % SPANS - self.epoch % SPANS
        else:
            sure = seen - step_ms if reading.epoch == self.epoch else self.now
            if by_clock < seen:
                sure = max(sure, by_clock)
            self.now, self.epoch = max(self.now, sure), reading.chance * SPANS

    def _take_all(self) -> None:
        for slot in self.slots:
            if slot.pending:
                self._refund(slot)
            slot.turn = 0  # no `done` may free it sooner
            slot.free_at = max(slot.free_at, self.now + self.rules.taken_ms)

    # Slots and turns.

    def _slot_of(self, turn: int, replica: str) -> Slot | None:
        return next((slot for slot in self.slots if turn and slot.turn == turn and slot.replica == replica), None)

    def _refund(self, slot: Slot) -> None:
        """Refund an unused turn: restore the slot's free time and the caller's position."""
        slot.turn = 0
        if slot.caller in self.tags:
            self.tags[slot.caller].value -= slot.cost

    def _return_turn(self, turn: int, replica: str) -> None:
        """Take back a turn that has led to no call: if it has begun, that is undone."""
        slot, rules = self._slot_of(turn, replica), self.rules
        if slot and not slot.pending and slot.free_at == slot.sent_at + rules.taken_ms:
            slot.free_at, slot.begun_at = slot.usable_at, -1
            flight = self.flights.get(slot.block)
            if flight and flight.turn == turn:
                del self.flights[slot.block]
        self._give_back(turn, replica)

    def _give_back(self, turn: int, replica: str, *, took_ms: int | None = None) -> None:
        slot = self._slot_of(turn, replica)
        if slot is None:
            return
        if slot.pending:
            self._refund(slot)
            return
        answered_at = self.now if took_ms is None else min(self.now, slot.begun_at + took_ms)
        answered_at = max(answered_at, slot.sent_at)
        held = min(answered_at - slot.sent_at, self.rules.transit_ms)
        self.held += (held - self.held) / HELD_SHARE
        slot.free_at = min(slot.free_at, answered_at + self.rules.rest_ms)
        slot.turn = 0
        flight = self.flights.get(slot.block)
        if flight and flight.turn == turn:
            del self.flights[slot.block]

    def _begin(self, slot: Slot, block: str, *, known: bytes, stored: bytes) -> Beginning:
        answer = self._refusal(slot, self.flights.get(block), known=known, stored=stored)
        if answer is None:
            self._take(slot, block)
            return Begun(usable_in_ms=slot.sent_at - self.now)
        return answer

    def _refusal(self, slot: Slot, flight: Flight | None, *, known: bytes, stored: bytes) -> Beginning | None:
        other = flight if flight and flight.turn != slot.turn and flight.ends > self.now else None
        is_stored = slot.pending and stored not in {b"", known}
        if other or is_stored:
            if slot.pending:
                self._take_off(slot)
            self._give_back(slot.turn, slot.replica)
            if is_stored or other is None:
                return AlreadyStored(head=stored)
            return Joined(lease_in_ms=other.ends - self.now)
        if self._is_paused(slot):
            self._give_back(slot.turn, slot.replica)
            return Paused(pause_in_ms=self.pause_until - self.now, reason=self.pause_reason)
        return None

    def _give_due(
        self, wish: Wish | None, replica: str, begun: Begun | Joined | AlreadyStored | None, *, stored: bytes
    ) -> tuple[Demand, Begun | Joined | AlreadyStored | None]:
        """Give all turns that are due, and use one for the wish, unless it has `begun`; where that was not needed, it
        is somebody else's."""
        seen = self._look()
        self._give(seen)
        if begun is None:
            begun = self._grant(wish, replica, stored=stored)
            if begun is not None and not isinstance(begun, Begun):
                seen = self._look()
                self._give(seen)
        return seen, begun

    def _grant(self, wish: Wish | None, replica: str, *, stored: bytes) -> Begun | Joined | AlreadyStored | None:
        """Begin the wish's fetch if the caller has a turn that the replica does not use; None if not."""
        if wish is None:
            return None
        for slot in self.slots:
            is_unused = slot.pending and slot.turn not in wish.in_use
            if is_unused and (slot.replica, slot.caller) == (replica, wish.caller) and not self._is_paused(slot):
                slot.turn = wish.turn
                answer = self._begin(slot, wish.block, known=wish.known, stored=stored)
                return answer if isinstance(answer, (Begun, Joined, AlreadyStored)) else None
        return None

    def _is_paused(self, slot: Slot) -> bool:
        return self.pause_until > max(self.now, slot.usable_at)

    def _take(self, slot: Slot, block: str) -> None:
        rules = self.rules
        if slot.pending:
            self._take_off(slot)
            slot.started = slot.usable_at
            slot.block = block
        slot.begun_at = self.now
        slot.free_at = slot.sent_at + rules.taken_ms
        if self.now >= self.purge_at:
            self.flights = {name: flight for name, flight in self.flights.items() if flight.ends > self.now}
            self.purge_at = self.now + rules.fetch_lease_ms
        self.flights[block] = Flight(turn=slot.turn, ends=slot.sent_at + rules.fetch_lease_ms)

    def _take_off(self, slot: Slot) -> None:
        """Take one from the demand that this slot's turn was given for."""
        report = self.reports.get(slot.replica)
        row = report.rows.get(slot.caller) if report else None
        if row is not None and row.count > 0:
            row.count -= 1

    # Choosing the next caller.

    def _reach(self) -> int:
        return self.now + self.ahead_ms

    def _free_slots(self) -> int:
        """Return the number of slots that could carry a turn given now."""
        return sum(not slot.pending and slot.free_at <= self._reach() for slot in self.slots)

    @property
    def _spare(self) -> int:
        """Return how many slots must be free for a background turn: one is kept for new requests."""
        return min(2, self.rules.calls)

    def _may_give(self) -> bool:
        return self.pause_until <= self._reach() and self._free_slots() > 0

    def _last_start(self) -> int:
        return max(slot.usable_at if slot.pending else slot.started for slot in self.slots)

    def _next_at(self, count: int, *, urgent: bool) -> int:
        """Return when the next turn is usable if `count` wait for one; `urgent` if not all of them are in the
        background."""
        lapse_ms = self.rules.turn_lease_ms + self.ahead_ms
        frees = sorted(slot.usable_at + lapse_ms if slot.pending else slot.free_at for slot in self.slots)
        first = frees[0 if urgent else self._spare - 1]
        at = max(self.now, self.pause_until, first)
        if count > max(1, self._free_slots()):
            at = max(at, self._last_start() + self.rules.gap_ms)
        return at

    def _look(self) -> Demand:
        """Return the demand over all live replicas, and update the callers' tags."""
        for name in [name for name, report in self.reports.items() if report.expires <= self.now]:
            del self.reports[name]
        seen = standing(
            [
                (name, caller, row.weight, row.count, row.since, row.background)
                for name, report in self.reports.items()
                for caller, row in report.rows.items()
            ],
            [(slot.replica, slot.caller) for slot in self.slots if slot.pending],
        )
        self._bring_up_tags(seen.present)
        return seen

    def _bring_up_tags(self, present: set[str]) -> None:
        if not any(tag.active for caller, tag in self.tags.items() if caller in present):
            self.tags = {}
            self.virtual = 0.0
        for caller in self.tags.keys() - present:
            self.tags[caller].active = False
            if self.tags[caller].value <= self.virtual:
                del self.tags[caller]
        for caller in present:
            tag = self.tags.setdefault(caller, Tag(value=self.virtual, active=False))
            if not tag.active:
                tag.active = True
                tag.value = max(tag.value, self.virtual)

    def _give(self, seen: Demand) -> None:
        """Give all turns that are due."""
        rules = self.rules
        paced = seen.pressing > self._free_slots()
        while seen.count:
            open_slots = [slot for slot in self.slots if not slot.pending]
            if not open_slots:
                return
            slot = min(open_slots, key=lambda each: each.free_at)
            usable_at = max(self.now, self.pause_until, slot.free_at)
            if paced:
                usable_at = max(usable_at, self._last_start() + rules.gap_ms)
            if usable_at > self._reach():
                return
            crowd = min(
                (each for each in seen.crowds.values() if each.count),
                key=lambda each: (each.background, self.tags[each.caller].value, each.since, each.caller),
            )
            if crowd.background and self._free_slots() < self._spare:
                return
            share = min((each for each in crowd.shares if each.count), key=lambda each: (each.since, each.replica))
            tag = self.tags[crowd.caller]
            if not crowd.background:
                self.virtual = max(self.virtual, tag.value)
            self.next_id += 1
            slot.turn, slot.replica, slot.caller = self.next_id, share.replica, crowd.caller
            slot.cost = 1 / crowd.weight
            slot.usable_at, slot.begun_at, slot.block = usable_at, -1, ""
            tag.value += slot.cost
            seen.take(crowd, share)

    def _board(self, seen: Demand) -> Board:
        ranks = [
            Rank(
                caller=crowd.caller,
                count=crowd.count,
                tag=self.tags[crowd.caller].value,
                weight=crowd.weight,
                waited_ms=self.now - crowd.since,
                background=crowd.background,
            )
            for crowd in seen.crowds.values()
            if crowd.count
        ]
        ranks.sort(key=lambda rank: (rank.background, rank.tag, -rank.waited_ms, rank.caller))
        return Board(virtual=self.virtual, held_ms=int(self.held + 0.5), ranks=tuple(ranks[:BOARD_ROWS]))
