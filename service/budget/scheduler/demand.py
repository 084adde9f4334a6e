"""Who waits, summed over the reports of all live replicas."""

from collections.abc import Iterable

import msgspec


class ReplicaDemand(msgspec.Struct, kw_only=True):
    """A caller's part on one replica: how many wait there without a turn, and since when the oldest does."""

    replica: str
    count: int
    since: int


class CallerDemand(msgspec.Struct, kw_only=True):
    """All that one caller waits for. Where replicas disagree about its weight, the largest holds.

    It waits in the background only where all its places do.
    """

    caller: str
    weight: float
    count: int
    since: int
    background: bool = True
    shares: list[ReplicaDemand]


class Demand(msgspec.Struct, kw_only=True):
    """Everyone who waits without a turn, and the names of those who wait or hold a turn.

    `count` is how many in all, `urgent` how many of them not in the background.
    """

    count: int
    urgent: int
    crowds: dict[str, CallerDemand]
    present: set[str]

    def take(self, crowd: CallerDemand, share: ReplicaDemand) -> None:
        """One fewer waits without a turn."""
        share.count -= 1
        crowd.count -= 1
        self.count -= 1
        self.urgent -= not crowd.background

    @property
    def pressing(self) -> int:
        """How many wait at the same time as far as pacing goes: the background presses nobody but itself."""
        return self.urgent or self.count


def standing(rows: Iterable[tuple[str, str, float, int, int, bool]], held: Iterable[tuple[str, str]]) -> Demand:
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
