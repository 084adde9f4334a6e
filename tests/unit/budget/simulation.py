"""Simulate replicas and callers on one policy: minutes of budget in a second."""

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable

from service.budget.scheduler.interfaces import Begun, TickRequest, WaitingCount
from service.budget.scheduler.policy.state import Reading
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.server_clock import ServerClock
from tests.windows import most_in_window


class Simulation:
    """Well-behaved replicas: each ticks when due, begins its turns when they are usable, and ends its fetches.

    `redis_ms` and `upstream_ms` draw the time of one way to Redis and of a whole call to the upstream.
    """

    def __init__(
        self, rules: Rules, *, replicas: int, redis_ms: tuple[float, float], upstream_ms: tuple[float, float], seed: int
    ) -> None:
        self.rules = rules
        self.now = 0.0
        self.policy = Policy(rules)
        self.random = random.Random(seed)
        self.redis_ms = redis_ms
        self.upstream_ms = upstream_ms
        self.names = [f"r{number}" for number in range(replicas)]
        self.lines: dict[str, dict[str, list[float]]] = {name: {} for name in self.names}
        self.weights: dict[str, float] = {}
        self.calls: list[float] = []
        self.begun: list[float] = []
        self.served: Counter[str] = Counter()
        self.waits: dict[str, list[float]] = {}
        self.held: list[float] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._next_tick: dict[str, float] = dict.fromkeys(self.names, -1.0)
        self._using: set[int] = set()
        self._watches = {name: ServerClock() for name in self.names}

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Schedule `action` for the given time."""
        heapq.heappush(self._events, (when, next(self._order), what))

    def run(self, until: float) -> None:
        """Advance the time."""
        while self._events and self._events[0][0] <= until:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = until

    def ask(self, replica: str, caller: str, *, count: int = 1, weight: float = 1) -> None:
        """Queue blocks now, and tick."""
        self.weights[caller] = weight
        self.lines[replica].setdefault(caller, []).extend([self.now] * count)
        self._tick_at(replica, self.now)

    def _way(self) -> float:
        return self.random.uniform(*self.redis_ms)

    def _reading(self, replica: str, sent: float) -> Reading:
        epoch, seen_ms = self._watches[replica].read(sent)
        chance = self.random.randint(1, 2**31)
        ahead_ms = self.rules.ahead_for(self._watches[replica].round_trip_ms)
        return Reading(raw_ms=int(self.now), run_id="a", epoch=epoch, seen_ms=seen_ms, ahead_ms=ahead_ms, chance=chance)

    def _answered(self, replica: str, sent: float) -> float:
        """Return when the reply to the call that has just been made arrives."""
        back = self.now + self._way()
        epoch, now_ms = self.policy.epoch, self.policy.now
        self.at(back, lambda: self._watches[replica].answered(epoch, now_ms, sent_ms=sent, now_ms=back))
        return back

    def _tick_at(self, replica: str, when: float) -> None:
        def fire() -> None:
            if self._next_tick[replica] == when:
                self._next_tick[replica] = -1
                self.at(when + self._way(), lambda: self._tick(replica, when))

        if self._next_tick[replica] < 0 or when < self._next_tick[replica]:
            self._next_tick[replica] = when
            self.at(when, fire)

    def _tick(self, replica: str, sent: float) -> None:
        rows = tuple(
            WaitingCount(
                caller=caller, weight=self.weights[caller], count=len(line), waited_ms=max(0, int(self.now - line[0]))
            )
            for caller, line in self.lines[replica].items()
            if line
        )
        ticked = self.policy.tick(self._reading(replica, sent), replica, TickRequest(waiting=rows))
        back = self._answered(replica, sent)
        for turn in ticked.turns:
            if turn.id not in self._using:
                self._using.add(turn.id)
                self._begin_at(replica, back, turn.id, turn.caller)
        if ticked.due_in_ms is not None:
            self._tick_at(replica, back + min(ticked.due_in_ms, self.rules.report_lease_ms / 3))

    def _begin_at(self, replica: str, sent: float, turn: int, caller: str) -> None:
        self.at(sent + self._way(), lambda: self._begin(replica, sent, turn, caller))

    def _begin(self, replica: str, sent: float, turn: int, caller: str) -> None:
        answer = self.policy.begin(self._reading(replica, sent), replica, turn, block=f"b{turn}", known=b"", stored=b"")
        back = self._answered(replica, sent)
        if not isinstance(answer, Begun):
            self._tick_at(replica, self.now)
            return
        asked = self.lines[replica][caller].pop(0)
        called = back + answer.usable_in_ms
        self.waits.setdefault(caller, []).append(called - asked)
        self.served[caller] += 1
        self.begun.append(called)
        took = self.random.uniform(*self.upstream_ms)
        self.calls.append(called + self.random.uniform(0, took))
        self.held.append(min(took, self.rules.transit_ms))
        answered = called + took
        took_ms = math.ceil(answered - sent)
        self.at(answered + self._way(), lambda: self._done(replica, answered, turn, took_ms))

    def _done(self, replica: str, sent: float, turn: int, took_ms: int) -> None:
        reading = self._reading(replica, sent)
        self.policy.done(reading, replica, turn, block=f"b{turn}", pause_ms=0, pause_reason="", took_ms=took_ms)
        self._answered(replica, sent)

    def most_in_a_window(self) -> int:
        """The largest number of calls that reached the upstream in any window."""
        return most_in_window(self.calls, self.rules.window_ms)

    def use(self, since: float) -> float:
        """Calls made since a time, as a share of N / (W + min(round trip, transit))."""
        made = [begun for begun in self.begun if begun >= since]
        held = sum(self.held) / len(self.held)
        return len(made) / ((self.now - since) * self.rules.calls / (self.rules.window_ms + held))
