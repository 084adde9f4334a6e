"""A whole simulation: replicas, callers and faults of a plan on one virtual clock, watched all the time."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from structlog.testing import capture_logs

from service.budget.scheduler.rules import Rules
from service.model.calls import CallKind, budget_name
from service.model.freshness import Lifetimes
from tests.simulation.faults import Faults
from tests.simulation.invariants import (
    Purged,
    Violated,
    backlog_is_served,
    limit_holds,
    nothing_is_held,
    nothing_is_left,
    rounds_are_fair,
    work_is_bounded,
)
from tests.simulation.memory_redis import MemoryRedis
from tests.simulation.model_scheduler import ModelServer, model_servers
from tests.simulation.plan import APPS, Plan
from tests.simulation.sim_callers import SimCaller
from tests.simulation.sim_replica import Replica
from tests.simulation.sim_upstream import CALL_TIMEOUT_S, SimUpstream
from tests.simulation.virtual_time import run_in_virtual_time

LOOK_S = 0.1
TOTAL = 35
BUDGETS = {budget_name(app, kind): (app, kind) for app in APPS for kind in CallKind}
SETTLE_S = 4.0
"""How long after a fault a slot may be idle: leases of turns, reports and a quiet window."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a simulation: the violation, if any, and the history before it."""

    plan: Plan
    violated: str | None
    detail: str
    history: tuple[str, ...]
    requests: int
    calls: int


class World:
    """Everything that a plan needs. `note` writes the history; `disturbed` grants some time for recovery."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.loop = asyncio.get_running_loop()
        self.history: deque[str] = deque(maxlen=400)
        self.requests = 0
        self.purges: list[Purged] = []
        self.served_s: dict[str, list[float]] = {}
        self.rules = Rules(
            calls=plan.calls,
            window_ms=plan.window_ms,
            transit_ms=plan.transit_ms,
            fetch_lease_ms=int(CALL_TIMEOUT_S * 1000) + plan.transit_ms,
            ahead_ms=min(25, plan.window_ms // 4),
        )
        self.lifetimes = Lifetimes(
            fresh_s=plan.fresh_s,
            settled_s=plan.fresh_s,
            refusal_s=plan.fresh_s,
            stale_while_revalidate_s=plan.fresh_s,
            stale_if_error_s=plan.fresh_s * 4,
        )
        self.redis = MemoryRedis(self.loop.time)
        self.servers = model_servers(
            APPS, self.rules, self.redis, chance=lambda budget: self.chance(f"server {budget}")
        )
        self.upstream = SimUpstream(
            self.chance("upstream"),
            round_trip_s=plan.upstream_s,
            transit_s=plan.transit_ms / 1000,
            slow_connects=plan.slow_connects,
            total=TOTAL,
        )
        self.replicas: list[Replica] = []
        self.born = 0
        self.disturbed_until_s = SETTLE_S
        self._idle_since_s: dict[str, float | None] = dict.fromkeys(BUDGETS)
        for _ in range(plan.replicas):
            self.give_birth()

    def chance(self, what: str) -> random.Random:
        """Return a separate source of randomness for each part, so that leaving one out hardly changes the others."""
        return random.Random(f"{self.plan.seed} {what}")

    def note(self, text: str) -> None:
        """Write the history."""
        self.history.append(f"{self.loop.time():9.3f}  {text}")

    def disturbed(self, lasts_s: float = 0.0) -> None:
        """Record a disturbance that may take time to recover from, during which each replica may look."""
        self.disturbed_until_s = max(self.disturbed_until_s, self.loop.time() + lasts_s + SETTLE_S)
        for replica in self.replicas:
            for _ in range(10):
                replica.event()

    def give_birth(self) -> None:
        """Start one more replica."""
        self.born += 1
        name = f"r{self.born}"
        chance = self.chance(name)
        plan, is_second = self.plan, self.born % 2 == 0
        calls = max(plan.calls - 1, 1) if plan.calls_apart and is_second else plan.calls
        replica = Replica(
            name,
            apps=APPS,
            servers=self.servers,
            redis=self.redis,
            upstream=self.upstream,
            rules=msgspec.structs.replace(self.rules, calls=calls),
            lifetimes=self.lifetimes,
            chance=chance,
            delay_s=self.plan.redis_s,
            memory_bytes=self.plan.memory_bytes,
            wall_s=lambda: 1_700_000_000 + self.loop.time(),
            weights_by=3.0 if plan.weights_apart and is_second else 1.0,
            max_replicas=plan.replicas if plan.shares else 0,
        )
        replica.wall_off_s = chance.uniform(-1, 1) * self.plan.wall_apart_s
        self.replicas.append(replica)
        replica.start()

    def turn_ends(self) -> str:
        """Return how turns have ended so far, for a failing seed's history."""
        return "; ".join(
            f"{replica.name} {budget_name(call.app, call.kind)}: {dict(call.line.turn_ends)}"
            for replica in self.replicas
            for call in replica.calls
        )

    async def run(self) -> None:
        """Execute the plan. Raise Violated."""
        callers = [SimCaller(each, self) for each in self.plan.callers]
        faults = Faults(self)
        work = [asyncio.create_task(caller.run(self.plan.duration_s)) for caller in callers]
        work += [asyncio.create_task(faults.run(each)) for each in self.plan.faults]
        work.append(asyncio.create_task(self._watch()))
        try:
            await self._wait_for(work)
            await asyncio.sleep(40.0)
            for replica in self.replicas:
                nothing_is_left(replica)
            for budget, server in self.servers.items():
                nothing_is_held(server.policy, budget=budget, now_ms=self._server_ms(server))
            self._judge_backlog()
            for replica in self.replicas:
                await asyncio.wait_for(replica.aclose(), 30)
        except TimeoutError:
            raise Violated("late", "a replica does not end") from None
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            for budget, times in self.upstream.arrived_at_s.items():
                limit_holds(times, budget=budget, calls=self._most_calls(), window_s=self.plan.window_ms / 1000)

    def _most_calls(self) -> int:
        """Return the limit. A single replica that loses Redis' answers may share, beside the others' whole budget."""
        plan = self.plan
        cut_off = sum(fault.kind == "answers are lost" for fault in plan.faults) if plan.shares else 0
        return plan.calls + cut_off * (plan.calls // plan.replicas)

    async def _wait_for(self, work: list["asyncio.Task[None]"]) -> None:
        pending = set(work)
        while len(pending) > 1 or self.loop.time() < self.plan.duration_s:
            done, pending = await asyncio.wait(pending, timeout=1.0, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if self.loop.time() > self.plan.duration_s + 120:
                raise Violated("late", "a caller is never answered")

    async def _watch(self) -> None:
        looked = 0
        while True:
            await asyncio.sleep(LOOK_S)
            looked += 1
            for budget in BUDGETS:
                self._no_slot_idles(budget)
            if looked % 5 == 0:
                for replica in self.replicas:
                    work_is_bounded(replica, self.plan, now_s=self.loop.time())

    def _server_ms(self, server: ModelServer) -> int:
        """Return the present time of the server's policy."""
        return server.policy.now + int(self.loop.time() * 1000) + server.clock_off_ms - server.policy.raw

    def _no_slot_idles(self, budget: str) -> None:
        """A block that a request waits for is fetched within two windows after a slot is free."""
        (app, kind), server, now_s = BUDGETS[budget], self.servers[budget], self.loop.time()
        policy = server.policy
        now_ms = self._server_ms(server)
        idles = any(not slot.pending and slot.free_at <= now_ms for slot in policy.slots)
        if not idles or policy.pause_until > now_ms or now_s < self.disturbed_until_s:
            self._idle_since_s[budget] = None
            return
        waits = [
            row.waited_ms
            for replica in self.replicas
            for row in replica.apps[app].of(kind).line.waiting()
            if not row.background and row.waited_ms > 2 * self.plan.window_ms
        ]
        if not waits:
            self._idle_since_s[budget] = None
            return
        since_s = self._idle_since_s[budget]
        if since_s is None:
            self._idle_since_s[budget] = now_s
        elif now_s - since_s > 2 * self.plan.window_ms / 1000 + 0.3:
            raise Violated("stuck", f"slots of {budget} are free since {since_s:.2f} s, and {len(waits)} callers wait")

    def _judge_backlog(self) -> None:
        """In a calm plan all turns are used, and each caller gets its share."""
        times = self.upstream.arrived_at_s.get("shop", [])
        if self.plan.faults or not times or any(each.kind != "backlog" for each in self.plan.callers):
            return
        held_s = min(self.upstream.busy_s / len(times), self.plan.transit_ms / 1000)
        cycle_s = (self.plan.window_ms + 1) / 1000 + held_s + 2 * self.plan.redis_s[1]
        calls, until_s = self.plan.calls, self.plan.duration_s
        backlog_is_served(times, calls=calls, cycle_s=cycle_s, since_s=5.0, until_s=until_s)
        rounds_are_fair(self.served_s, calls=calls, cycle_s=cycle_s, since_s=5.0)


def simulate(plan: Plan) -> Outcome:
    """Run a plan to its end or to the first violation."""
    worlds: list[World] = []

    async def run() -> None:
        world = World(plan)
        worlds.append(world)
        await world.run()

    violated, detail = None, ""
    with capture_logs() as logs:
        try:
            run_in_virtual_time(run)
        except Violated as exc:
            violated, detail = exc.name, str(exc)
    faults = [entry for entry in logs if entry["log_level"] in ("error", "critical")]
    if violated is None and faults:
        violated, detail = "error", f"{faults[0]}"
    world = worlds[0]
    history = (*world.history, world.turn_ends()) if violated else ()
    return Outcome(
        plan=plan,
        violated=violated,
        detail=detail,
        history=history,
        requests=world.requests,
        calls=sum(map(len, world.upstream.arrived_at_s.values())),
    )


def shrunk(plan: Plan, violated: str, *, smaller: Callable[[Plan], Any], tries: int = 60) -> Plan:
    """Return a smaller plan with the same violation, by leaving parts out."""
    goes_on = True
    while goes_on and tries > 0:
        goes_on = False
        for less in smaller(plan):
            tries -= 1
            with suppress(Exception):
                if simulate(less).violated == violated:
                    plan, goes_on = less, True
                    break
            if tries <= 0:
                break
    return plan
