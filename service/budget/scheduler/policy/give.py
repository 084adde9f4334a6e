"""Who is next: the demand over all replicas, and the turns given for it."""

from service.budget.scheduler.interfaces import Board, Rank
from service.budget.scheduler.policy.callers import Demand, bring_up_tags, demand_of
from service.budget.scheduler.policy.reports import bury_dead
from service.budget.scheduler.policy.slots import free_slots, last_start, reach, spare_slots
from service.budget.scheduler.policy.state import BudgetState

BOARD_ROWS = 1_000


def look(state: BudgetState) -> Demand:
    """Return the demand over all live replicas, and update the callers' tags."""
    bury_dead(state)
    seen = demand_of(
        [
            (name, caller, row.weight, row.count, row.since, row.background)
            for name, report in state.reports.items()
            for caller, row in report.rows.items()
        ],
        [(slot.replica, slot.caller) for slot in state.slots if slot.pending],
    )
    bring_up_tags(state, seen.present)
    return seen


def give(state: BudgetState, seen: Demand) -> None:
    """Give all turns that are due."""
    rules = state.rules
    paced = seen.pressing > free_slots(state)
    while seen.count:
        open_slots = [slot for slot in state.slots if not slot.pending]
        if not open_slots:
            return
        slot = min(open_slots, key=lambda each: each.free_at)
        usable_at = max(state.now, state.pause_until, slot.free_at)
        if paced:
            usable_at = max(usable_at, last_start(state) + rules.gap_ms)
        if usable_at > reach(state):
            return
        crowd = min(
            (each for each in seen.crowds.values() if each.count),
            key=lambda each: (each.background, state.tags[each.caller].value, each.since, each.caller),
        )
        if crowd.background and free_slots(state) < spare_slots(state):
            return
        share = min((each for each in crowd.shares if each.count), key=lambda each: (each.since, each.replica))
        tag = state.tags[crowd.caller]
        if not crowd.background:
            state.virtual = max(state.virtual, tag.value)
        state.next_id += 1
        slot.turn, slot.replica, slot.caller = state.next_id, share.replica, crowd.caller
        slot.cost = 1 / crowd.weight
        slot.usable_at, slot.begun_at, slot.block = usable_at, -1, ""
        tag.value += slot.cost
        seen.take(crowd, share)


def board_of(state: BudgetState, seen: Demand) -> Board:
    """Return the callers that wait without a turn, in order."""
    ranks = [
        Rank(
            caller=crowd.caller,
            count=crowd.count,
            tag=state.tags[crowd.caller].value,
            weight=crowd.weight,
            waited_ms=state.now - crowd.since,
            background=crowd.background,
        )
        for crowd in seen.crowds.values()
        if crowd.count
    ]
    ranks.sort(key=lambda rank: (rank.background, rank.tag, -rank.waited_ms, rank.caller))
    return Board(virtual=state.virtual, held_ms=int(state.held + 0.5), ranks=tuple(ranks[:BOARD_ROWS]))
