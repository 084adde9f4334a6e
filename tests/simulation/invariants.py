"""A simulation's invariants: no call too many, no wrong page, an answer for every request, and no needless work."""

import bisect
import itertools
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from service.budget.scheduler.policy.steps import Policy
from service.model.pages import Source
from tests.simulation.plan import Plan
from tests.simulation.sim_replica import Replica
from tests.simulation.sim_upstream import CALL_TIMEOUT_S, Served

CLOCKS_APART_S = 1.0
PASSED_ON_S = 0.6
"""Without faults; several ways to Redis and back, and less than a replica takes to look by itself."""
WORK_WITHIN_S = 2.0
SCRIPTS = ("tick", "begin", "done")


class Violated(Exception):
    """An invariant does not hold. `name` is its kind."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Purged(msgspec.Struct, frozen=True, kw_only=True):
    """A purge that has been answered."""

    app: str
    began_s: float
    ended_s: float


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A request and what it got: the titles tell which calls its records came from.

    `keyword` is that of the list, None for a task of any list.
    """

    app: str
    keyword: str | None
    asked_s: float
    ended_s: float
    connected_since_s: float
    no_cache: bool
    source: Source
    titles: tuple[str, ...]


def limit_holds(arrived_at_s: Sequence[float], *, budget: str, calls: int, window_s: float) -> None:
    """Never more than `calls` in any window at the upstream."""
    times = sorted(arrived_at_s)
    for earlier, later in zip(times, times[calls:], strict=False):
        if later - earlier < window_s - 1e-6:
            raise Violated("limit", f"{calls + 1} calls for {budget} within {later - earlier:.4f} s, at {later:.3f} s")


def page_is_right(page: Answered, served: Sequence[Served], purges: Iterable[Purged], *, clocks_agree: bool) -> None:
    """Never a page of another query or app, or from before a purge; never an older one than requested."""
    for title in page.titles:
        app, keyword, number = title.split("/")
        call = served[int(number)]
        if app != page.app or page.keyword not in (keyword, None):
            raise Violated("page", f"asked for {page.app}/{page.keyword}, got {title}")
        for purge in purges:
            has_heard = page.connected_since_s < purge.began_s or page.connected_since_s + 1.5 < page.asked_s
            after = purge.ended_s + 0.3 < page.asked_s
            if purge.app == app and after and has_heard and call.sent_at_s < purge.began_s:
                raise Violated("purge", f"{title}, of {call.sent_at_s:.2f} s, at {page.asked_s:.2f} s")
        if page.no_cache and page.source is Source.STALE:
            raise Violated("no-cache", f"a stale {title}, asked for at {page.asked_s:.2f} s")
        if page.no_cache and clocks_agree and call.answered_at_s < page.asked_s - CLOCKS_APART_S - 0.5:
            raise Violated("no-cache", f"{title}, of {call.answered_at_s:.2f} s, asked for at {page.asked_s:.2f} s")


def block_is_passed_on(page: Answered, served: Sequence[Served]) -> None:
    """Every waiting request has its block soon after its call was answered, whichever replica made the call."""
    if page.source not in (Source.JOINED, Source.FETCHED) or not page.titles:
        return
    came_s = max(page.asked_s, *(served[int(title.split("/")[2])].answered_at_s for title in page.titles))
    if page.ended_s - came_s > PASSED_ON_S:
        what = f"{page.app}/{page.keyword}, asked for at {page.asked_s:.2f} s, came at {came_s:.2f} s"
        raise Violated("late", f"{what}, and was passed on after {page.ended_s - came_s:.2f} s")


def answer_is_in_time(*, asked_s: float, ended_s: float, patience_s: float, slack_s: float, what: str) -> None:
    """Every waiting request is answered within patience, a call's timeout and a second."""
    bound_s, took_s = patience_s + CALL_TIMEOUT_S + 1.0 + slack_s, ended_s - asked_s
    if took_s > bound_s:
        raise Violated("late", f"{what}, asked at {asked_s:.2f} s, answered after {took_s:.2f} > {bound_s:.2f} s")


def work_is_bounded(replica: Replica, plan: Plan, *, now_s: float) -> None:
    """Script calls and commands follow from events and from ticks that are due, and from nothing else."""
    since_s = now_s - WORK_WITHIN_S
    events = _recent(replica.events, since_s)
    recent = {name: _recent(times, since_s) for name, times in replica.work.items()}
    scripts = sum(recent.pop(name, 0) for name in SCRIPTS)
    commands = sum(recent.values())
    during = f"in {WORK_WITHIN_S:g} s for {events} events, at {now_s:.1f} s"
    due = WORK_WITHIN_S * len(replica.calls) * (10 + 2.5 * plan.calls / plan.window_ms * 1000)
    if scripts > 15 + due + 5 * events:
        raise Violated("work", f"{replica.name}: {scripts} script calls {during}")
    if commands > 15 + WORK_WITHIN_S * 4 + 5 * events:
        raise Violated("work", f"{replica.name}: {commands} commands {during}")


def nothing_is_left(replica: Replica) -> None:
    """After all requests have ended, no waiter, queued block, task or lookup is left except each line's ticker and
    prober."""
    for call in replica.calls:
        if call.line.waiting():
            raise Violated("memory", f"{replica.name} still waits for {call.app}: {call.line.waiting()}")
    tasks = [task for task in replica.owner.tasks if not task.done()]
    # A prober, if there is one, waits in a separate task.
    if len(tasks) > sum(1 if call.sharing is None else 3 for call in replica.calls):
        names = ", ".join(sorted(str(task.get_coro()) for task in tasks))
        raise Violated("memory", f"{replica.name} has {len(tasks)} tasks left: {names}")


def nothing_is_held(policy: Policy, *, budget: str, now_ms: int) -> None:
    """After all requests have ended, no report, fetch or turn is valid any more."""
    lease_ms = policy.rules.turn_lease_ms
    held = [
        *(f"the report of {name}" for name, report in policy.reports.items() if report.expires > now_ms),
        *(f"the fetch of {block}" for block, flight in policy.flights.items() if flight.ends > now_ms),
        *(f"turn {slot.turn}" for slot in policy.slots if slot.pending and slot.usable_at + lease_ms > now_ms),
    ]
    if held:
        raise Violated("memory", f"{budget} still holds {', '.join(held)}")


def backlog_is_served(begun_s: Sequence[float], *, calls: int, cycle_s: float, since_s: float, until_s: float) -> None:
    """Over any ten seconds of backlog at least 95% of the budget is used."""
    times = sorted(begun_s)
    at_s = since_s
    while at_s + 10 <= until_s:
        made = bisect.bisect(times, at_s + 10) - bisect.bisect(times, at_s)
        allowed = 10 * calls / cycle_s
        if made < 0.95 * allowed - 1:
            raise Violated("use", f"{made} calls from {at_s:.1f} s on, of {allowed:.1f} in ten seconds")
        at_s += 1.0


def rounds_are_fair(served_s: dict[str, list[float]], *, calls: int, cycle_s: float, since_s: float) -> None:
    """No caller of equal weight waits longer for its next turn than a round of all takes, and half as long again."""
    round_s = (len(served_s) + 1) * cycle_s / calls
    for caller, times in served_s.items():
        late = [each for each in times if each >= since_s]
        for earlier, later in itertools.pairwise(late):
            if later - earlier > 1.5 * round_s + 0.3:
                raise Violated("fair", f"{caller} waited {later - earlier:.2f} s, a round takes {round_s:.2f} s")


def _recent(times: deque[float], since_s: float) -> int:
    """Drop the older times; return how many are left."""
    while times and times[0] < since_s:
        times.popleft()
    return len(times)
