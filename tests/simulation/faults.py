"""Faults of a simulation, each as it affects Redis, the upstream, a replica or a clock."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from service.model.errors import TaskgateError
from tests.simulation.invariants import Purged
from tests.simulation.plan import APPS, FaultPlan
from tests.simulation.sim_replica import Replica

if TYPE_CHECKING:
    from tests.simulation.world import World

BLOCKS = ":b:"


class Faults:
    """Executes the plan's faults."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._chance = world.chance("faults")
        self._kinds: dict[str, Callable[[FaultPlan], Awaitable[None]]] = {
            "keys are lost": self._keys_lost,
            "all is lost": self._all_lost,
            "redis restarts": self._restart,
            "redis fails over": self._fail_over,
            "values are damaged": self._damaged,
            "scheduler keys are lost": self._scheduler_keys_lost,
            "purge": self._purge,
            "reload": self._reload,
            "redis is away": self._away,
            "answers are lost": self._answers_lost,
            "a replica dies": self._dies,
            "a replica is slow": self._slow,
            "a wall clock steps": self._wall_steps,
            "the server's clock steps": self._server_steps,
            "messages are lost": self._messages_lost,
        }

    async def run(self, fault: FaultPlan) -> None:
        """Wait for the fault's time, and execute it."""
        world = self._world
        if fault.kind == "redis fails over":
            await asyncio.sleep(max(fault.at_s - fault.amount * 2, 0))
        else:
            await asyncio.sleep(fault.at_s)
        while not world.replicas:
            await asyncio.sleep(0.1)
        world.note(f"FAULT {fault.kind}, for {fault.lasts_s:.1f} s")
        world.disturbed(fault.lasts_s)
        await self._kinds.get(fault.kind, self._upstream)(fault)
        world.disturbed()

    def _replica(self) -> Replica:
        return self._chance.choice(self._world.replicas)

    async def _keys_lost(self, fault: FaultPlan) -> None:
        for key in self._world.redis.names():
            if self._chance.random() < fault.amount + 0.3:
                self._world.redis.delete(key)

    async def _all_lost(self, fault: FaultPlan) -> None:
        del fault
        self._world.redis.restore({})
        for server in self._world.servers.values():
            server.policy.forget()

    async def _restart(self, fault: FaultPlan) -> None:
        del fault
        self._world.redis.restore({})
        for server in self._world.servers.values():
            server.restart()
        self._reconnect_all()

    async def _fail_over(self, fault: FaultPlan) -> None:
        """The new master lacks the last writes."""
        world = self._world
        values, states = world.redis.copy(), {app: server.copy() for app, server in world.servers.items()}
        copied_s = world.loop.time()
        await asyncio.sleep(min(fault.amount * 2, fault.at_s))
        world.disturbed()
        world.redis.restore(values)
        for app, server in world.servers.items():
            server.restart(states[app])
        world.purges = [purge for purge in world.purges if purge.ended_s < copied_s]
        self._reconnect_all()

    def _reconnect_all(self) -> None:
        for replica in self._world.replicas:
            replica.connected_since_s = self._world.loop.time()
            replica.store.reconnect()

    async def _damaged(self, fault: FaultPlan) -> None:
        redis = self._world.redis
        for key in redis.names():
            value = redis.peek(key)
            if BLOCKS in key and self._chance.random() < fault.amount + 0.3:
                damaged = [value[:9], b"\x7f" + value[1:], value[:-1] + b"?", value[:20] + b"??" + value[22:]]
                redis.change(key, self._chance.choice(damaged))

    async def _scheduler_keys_lost(self, fault: FaultPlan) -> None:
        """One of the scheduler's own keys is evicted."""
        policy = self._world.servers[self._chance.choice(list(self._world.servers))].policy
        name = ("slots", "tags", "reports", "flights", "shares")[int(fault.amount * 4.99)]
        if name == "slots":
            policy.forget()
        elif name == "shares":
            for report in policy.reports.values():
                report.rows.clear()
        else:
            getattr(policy, name).clear()

    async def _purge(self, fault: FaultPlan) -> None:
        del fault
        world, replica = self._world, self._replica()
        app, began_s = self._chance.choice(APPS), world.loop.time()
        is_quiet = len([each for each in world.plan.faults if each.kind in _BREAK_PURGES]) == 0
        task = replica.run(replica.gateway.drop(app))
        await asyncio.wait([task])
        if task.cancelled() or isinstance(task.exception(), TaskgateError) or not is_quiet:
            return
        task.result()
        world.purges.append(Purged(app=app, began_s=began_s, ended_s=world.loop.time()))

    async def _reload(self, fault: FaultPlan) -> None:
        world = self._world
        lifetimes = msgspec.structs.replace(world.lifetimes, fresh_s=world.plan.fresh_s * (0.2 + fault.amount))
        for replica in world.replicas:
            replica.gateway.set_lifetimes(lifetimes)
            replica.cache.set_lifetimes(lifetimes)

    async def _away(self, fault: FaultPlan) -> None:
        self._world.redis.is_away = True
        await asyncio.sleep(fault.lasts_s)
        self._world.redis.is_away = False
        self._reconnect_all()

    async def _answers_lost(self, fault: FaultPlan) -> None:
        replica = self._replica()
        replica.network.answers_lost = 0.1 + fault.amount / 2
        await asyncio.sleep(fault.lasts_s)
        replica.network.answers_lost = 0.0

    async def _dies(self, fault: FaultPlan) -> None:
        world, replica = self._world, self._replica()
        world.replicas.remove(replica)
        replica.owner.kill()
        world.redis.stores.remove(replica.store)
        await asyncio.sleep(fault.lasts_s)
        world.give_birth()

    async def _slow(self, fault: FaultPlan) -> None:
        """Delay Redis for one replica by as long as its server clock may fail to notice."""
        replica = self._replica()
        usual_s, replica.network.delay_s = replica.network.delay_s, (0.02, 0.02 + fault.amount * 0.1)
        await asyncio.sleep(fault.lasts_s)
        replica.network.delay_s = usual_s

    async def _wall_steps(self, fault: FaultPlan) -> None:
        self._replica().wall_off_s += (fault.amount - 0.5) * self._chance.choice([0.1, 10.0, 7200.0])

    async def _server_steps(self, fault: FaultPlan) -> None:
        """Step the server's clock back by any time, or forward by more than counts as passing time."""
        step_ms = int((fault.amount - 0.5) * self._chance.choice([200, 4_000, 7_200_000]))
        rules = self._world.rules
        for server in self._world.servers.values():
            server.clock_off_ms += step_ms if step_ms <= 0 else step_ms + rules.clock_step_ms + 200

    async def _messages_lost(self, fault: FaultPlan) -> None:
        replica = self._replica()
        replica.network.is_listening = False
        await asyncio.sleep(fault.lasts_s)
        replica.connected_since_s = self._world.loop.time()
        replica.store.reconnect()

    async def _upstream(self, fault: FaultPlan) -> None:
        upstream: Any = self._world.upstream
        mood = fault.kind.split()[-1]
        if mood == "slow":
            usual_s, upstream.round_trip_s = upstream.round_trip_s, (0.5, 2.0)
            await asyncio.sleep(fault.lasts_s)
            upstream.round_trip_s = usual_s
            return
        upstream.mood = mood
        await asyncio.sleep(fault.lasts_s)
        upstream.mood = "well"


_BREAK_PURGES = {"answers are lost", "a replica is slow", "redis is away", "redis fails over", "messages are lost"}
