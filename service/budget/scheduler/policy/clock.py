"""The clock, what has ended by it, and what is lost with Redis's data."""

from service.budget.scheduler.policy.slots import refund
from service.budget.scheduler.policy.state import BudgetState, Reading, Slot

SPANS = 1024  # per epoch; an epoch's number is a multiple of this, plus the span's number


def settle(state: BudgetState, reading: Reading) -> None:
    """Bring the state to this call's time: the clock, lapsed turns, and as many slots as the rules say."""
    rules = state.rules
    if reading.run_id != state.run_id:
        state.clear()
        state.epoch = reading.chance * SPANS
        state.next_id = reading.chance * 2**20
        state.run_id = reading.run_id
    else:
        _advance(state, reading)
    state.raw = reading.raw_ms
    state.ahead_ms = reading.ahead_ms
    for slot in state.slots:
        slot.free_at = min(slot.free_at, state.now + rules.longest_ms)  # taken by one with a longer window
        if slot.pending and state.now >= slot.usable_at + rules.turn_lease_ms:
            refund(state, slot)
    while len(state.slots) > rules.calls:
        # Remove those that are free latest: the others continue if replicas with different numbers of slots take
        # turns.
        spare = min(state.slots, key=lambda slot: (slot.pending, -slot.free_at))
        if spare.pending:
            refund(state, spare)
        state.slots.remove(spare)
    while len(state.slots) < rules.calls:
        state.slots.append(Slot(free_at=state.now + rules.longest_ms, started=state.now))


def _advance(state: BudgetState, reading: Reading) -> None:
    """Read the server's clock or, if it has stepped, the latest time that is certain: see clock.lua."""
    step_ms = state.rules.clock_step_ms
    is_known = reading.epoch // SPANS == state.epoch // SPANS
    seen = max(state.now, reading.seen_ms) if is_known else state.now
    by_clock = state.now + reading.raw_ms - state.raw
    if seen <= by_clock < seen + step_ms:
        state.now = by_clock
        if not is_known:
            state.epoch += (state.epoch + 1) % SPANS - state.epoch % SPANS
    else:
        sure = seen - step_ms if reading.epoch == state.epoch else state.now
        if by_clock < seen:
            sure = max(sure, by_clock)
        state.now, state.epoch = max(state.now, sure), reading.chance * SPANS
