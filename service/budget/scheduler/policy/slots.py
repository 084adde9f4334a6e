"""Slots: the turns that hold them, the fetches that take them, and when they are free."""

from service.budget.scheduler.policy.reports import take_off
from service.budget.scheduler.policy.state import BudgetState, Flight, Slot

HELD_SHARE = 8  # a slot's held time is smoothed over about this many fetches


def slot_of(state: BudgetState, turn: int, replica: str) -> Slot | None:
    """Return the slot that this turn of the replica holds, begun or not."""
    return next((slot for slot in state.slots if turn and slot.turn == turn and slot.replica == replica), None)


def refund(state: BudgetState, slot: Slot) -> None:
    """Refund an unused turn: restore the slot's free time and the caller's position."""
    slot.turn = 0
    if slot.caller in state.tags:
        state.tags[slot.caller].value -= slot.cost


def end_flight(state: BudgetState, block: str, turn: int) -> None:
    """End the turn's fetch of this block, unless another one has taken its place."""
    flight = state.flights.get(block)
    if flight and flight.turn == turn:
        del state.flights[block]


def give_back(state: BudgetState, turn: int, replica: str, *, took_ms: int | None = None) -> None:
    """Free the turn's slot: one window after its answer, or as before the turn if it has not begun.

    The answer came `took_ms` after the last begin at the latest; without it, it counts from now.
    """
    slot = slot_of(state, turn, replica)
    if slot is None:
        return
    if slot.pending:
        refund(state, slot)
        return
    answered_at = state.now if took_ms is None else min(state.now, slot.begun_at + took_ms)
    answered_at = max(answered_at, slot.sent_at)
    held = min(answered_at - slot.sent_at, state.rules.transit_ms)
    state.held += (held - state.held) / HELD_SHARE
    slot.free_at = min(slot.free_at, answered_at + state.rules.rest_ms)
    slot.turn = 0
    end_flight(state, slot.block, turn)


def return_turn(state: BudgetState, turn: int, replica: str) -> None:
    """Take back a turn that has led to no call: if it has begun, that is undone."""
    slot, rules = slot_of(state, turn, replica), state.rules
    if slot and not slot.pending and slot.free_at == slot.sent_at + rules.taken_ms:
        slot.free_at, slot.begun_at = slot.usable_at, -1
        end_flight(state, slot.block, turn)
    give_back(state, turn, replica)


def take_slot(state: BudgetState, slot: Slot, block: str) -> None:
    """Take the slot for a fetch of the block from now, or renew it."""
    rules = state.rules
    if slot.pending:
        take_off(state, slot)
        slot.started = slot.usable_at
        slot.block = block
    slot.begun_at = state.now
    slot.free_at = slot.sent_at + rules.taken_ms
    if state.now >= state.purge_at:
        state.flights = {name: flight for name, flight in state.flights.items() if flight.ends > state.now}
        state.purge_at = state.now + rules.fetch_lease_ms
    state.flights[block] = Flight(turn=slot.turn, ends=slot.sent_at + rules.fetch_lease_ms)


def take_all_slots(state: BudgetState) -> None:
    """Take all slots from now: calls may have been made outside of this budget."""
    for slot in state.slots:
        if slot.pending:
            refund(state, slot)
        slot.turn = 0  # no `done` may free it sooner
        slot.free_at = max(slot.free_at, state.now + state.rules.taken_ms)


def is_paused(state: BudgetState, slot: Slot) -> bool:
    """Return whether the upstream has asked for a pause that lasts beyond the time when this turn is usable."""
    return state.pause_until > max(state.now, slot.usable_at)


def reach(state: BudgetState) -> int:
    """Return until when slots must be free for turns that are given now."""
    return state.now + state.ahead_ms


def free_slots(state: BudgetState) -> int:
    """Return the number of slots that could carry a turn given now."""
    return sum(not slot.pending and slot.free_at <= reach(state) for slot in state.slots)


def spare_slots(state: BudgetState) -> int:
    """Return how many slots must be free for a background turn: one is kept for new requests."""
    return min(2, state.rules.calls)


def may_give(state: BudgetState) -> bool:
    """Return whether a turn could be given now, if somebody waits."""
    return state.pause_until <= reach(state) and free_slots(state) > 0


def last_start(state: BudgetState) -> int:
    """Return when the latest turn started, or will start."""
    return max(slot.usable_at if slot.pending else slot.started for slot in state.slots)


def next_at(state: BudgetState, count: int, *, urgent: bool) -> int:
    """Return when the next turn is usable if `count` wait for one; `urgent` if not all of them are in the
    background."""
    lapse_ms = state.rules.turn_lease_ms + state.ahead_ms
    frees = sorted(slot.usable_at + lapse_ms if slot.pending else slot.free_at for slot in state.slots)
    first = frees[0 if urgent else spare_slots(state) - 1]
    at = max(state.now, state.pause_until, first)
    if count > max(1, free_slots(state)):
        at = max(at, last_start(state) + state.rules.gap_ms)
    return at
