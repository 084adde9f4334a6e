"""Callers: their demand over all live replicas, and their tags."""

from collections.abc import Iterable

import msgspec

from service.budget.scheduler.policy.state import BudgetState, Tag


class ReplicaDemand(msgspec.Struct, kw_only=True):
    """A caller's demand on one replica: how many blocks wait there without a turn, and since when the oldest does."""

    replica: str
    count: int
    since: int


class CallerDemand(msgspec.Struct, kw_only=True):
    """A caller's demand over all replicas. If replicas disagree about its weight, the largest counts.

    It is in the background only if all of its places are.
    """

    caller: str
    weight: float
    count: int
    since: int
    background: bool = True
    shares: list[ReplicaDemand]


class Demand(msgspec.Struct, kw_only=True):
    """All demand without a turn, and the names of callers that wait or hold a turn.

    `count` is the total, `urgent` the part of it that is not in the background.
    """

    count: int
    urgent: int
    crowds: dict[str, CallerDemand]
    present: set[str]

    def take(self, crowd: CallerDemand, share: ReplicaDemand) -> None:
        """Take one from the demand without a turn."""
        share.count -= 1
        crowd.count -= 1
        self.count -= 1
        self.urgent -= not crowd.background

    @property
    def pressing(self) -> int:
        """Return the demand to consider for pacing: background demand counts only if there is no other."""
        return self.urgent or self.count


def demand_of(rows: Iterable[tuple[str, str, float, int, int, bool]], held: Iterable[tuple[str, str]]) -> Demand:
    """Sum up (replica, caller, weight, count, since, background), less the turns `held` unused as (replica, caller)."""
    seen = Demand(count=0, urgent=0, crowds={}, present=set())
    shares: dict[tuple[str, str], ReplicaDemand] = {}
    for replica, caller, weight, count, since, background in rows:
        if count < 1:
            continue
        crowd = seen.crowds.setdefault(
            caller, CallerDemand(caller=caller, weight=weight, count=0, since=since, shares=[])
        )
        share = ReplicaDemand(replica=replica, count=count, since=since)
        shares[replica, caller] = share
        crowd.shares.append(share)
        crowd.weight = max(crowd.weight, weight)
        crowd.since = min(crowd.since, since)
        crowd.background = crowd.background and background
        crowd.count += count
        seen.count += count
    seen.urgent = sum(crowd.count for crowd in seen.crowds.values() if not crowd.background)
    seen.present.update(seen.crowds)
    for replica, caller in held:
        seen.present.add(caller)
        held_share = shares.get((replica, caller))
        if held_share is not None and held_share.count:
            seen.take(seen.crowds[caller], held_share)
    return seen


def bring_up_tags(state: BudgetState, present: set[str]) -> None:
    """Update the tags for a look that finds these callers waiting or holding a turn.

    A caller that returns starts at the present virtual time; one that has left is forgotten once that has passed. If no
    caller of the previous look still waits, virtual time starts again.
    """
    if not any(tag.active for caller, tag in state.tags.items() if caller in present):
        state.tags = {}
        state.virtual = 0.0
    for caller in state.tags.keys() - present:
        state.tags[caller].active = False
        if state.tags[caller].value <= state.virtual:
            del state.tags[caller]
    for caller in present:
        tag = state.tags.setdefault(caller, Tag(value=state.virtual, active=False))
        if not tag.active:
            tag.active = True
            tag.value = max(tag.value, state.virtual)
