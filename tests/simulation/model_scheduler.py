"""The scheduler's model behind a network: the equivalent of the script for a replica, in virtual time."""

import asyncio
import copy
import random
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from service.budget.scheduler.interfaces import Beginning, Begun, Ticked, TickRequest
from service.budget.scheduler.policy.state import Reading
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules
from service.budget.scheduler.server_clock import ServerClock
from service.model.blocks import HEAD_BYTES
from service.model.calls import CallKind, budget_name
from service.model.errors import StoreUnavailable
from tests.simulation.memory_redis import MemoryRedis, MemoryStore, Network

T = TypeVar("T")


class ModelServer:
    """Redis's state of the turns of one budget: the policy's state, the server's clock and its run."""

    def __init__(self, rules: Rules, redis: MemoryRedis, *, app: str, kind: CallKind, chance: random.Random) -> None:
        self.policy = Policy(rules)
        self.redis = redis
        self.channel = f"t:{{{app}}}:{kind.key_part}done"
        self.run = 1
        self.clock_off_ms = 1_000_000_000
        self._chance = chance

    def reading(self, epoch: int, seen_ms: int, *, ahead_ms: int) -> Reading:
        """The clock reading of a script when it runs."""
        raw_ms = int(asyncio.get_running_loop().time() * 1000) + self.clock_off_ms
        chance = self._chance.randint(1, 2**31)
        return Reading(
            raw_ms=raw_ms, run_id=str(self.run), epoch=epoch, seen_ms=seen_ms, ahead_ms=ahead_ms, chance=chance
        )

    def copy(self) -> dict[str, Any]:
        """The current data of a replica of the server."""
        return copy.deepcopy(self.policy.__dict__)

    def restart(self, state: dict[str, Any] | None = None) -> None:
        """Another run of the server, with an earlier state or none."""
        self.run += 1
        if state is None:
            self.policy.forget()
        else:
            self.policy.__dict__.update(copy.deepcopy(state))


def model_servers(
    apps: Iterable[str], rules: Rules, redis: MemoryRedis, *, chance: Callable[[str], random.Random]
) -> dict[str, ModelServer]:
    """The states of all budgets by their names; `chance` returns a source of chance for a name."""
    return {
        (name := budget_name(app, kind)): ModelServer(rules, redis, app=app, kind=kind, chance=chance(name))
        for app in apps
        for kind in CallKind
    }


class ModelScheduler:
    """Implements `Scheduler` for one replica, by its own rules. `on_call` is called with each step's name when it is
    sent.
    """

    def __init__(
        self, server: ModelServer, network: Network, *, rules: Rules, replica: str, on_call: Callable[[str], None]
    ) -> None:
        self._server = server
        self._rules = rules
        self._network = network
        self._replica = replica
        self._on_call = on_call
        self._clock = ServerClock()

    async def tick(self, request: TickRequest) -> Ticked:
        """See `Scheduler.tick`."""
        wish = request.wish

        def step(reading: Reading) -> Ticked:
            return self._server.policy.tick(
                reading,
                self._replica,
                request,
                stored=b"" if wish is None else self._server.redis.peek(wish.block)[:HEAD_BYTES],
            )

        ticked, wait_ms = await self._call("tick", step)
        return ticked.by_own_clock(wait_ms)

    async def begin(self, turn: int, *, block: str, known: bytes) -> Beginning:
        """See `Scheduler.begin`."""

        def step(reading: Reading) -> Beginning:
            stored = self._server.redis.peek(block)[:HEAD_BYTES]
            return self._server.policy.begin(
                reading, self._replica, turn, block=block, known=known[:HEAD_BYTES], stored=stored
            )

        beginning, wait_ms = await self._call("begin", step)
        return beginning.by_own_clock(wait_ms) if isinstance(beginning, Begun) else beginning

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """See `Scheduler.done`."""

        def step(reading: Reading) -> None:
            self._server.policy.done(
                reading,
                self._replica,
                turn,
                block=block,
                pause_ms=pause_ms,
                pause_reason=pause_reason,
                took_ms=took_ms,
            )
            self._server.redis.publish(self._server.channel, block.encode())

        await self._call("done", step)

    async def _call(self, name: str, step: Callable[[Reading], T]) -> tuple[T, Callable[[int], int]]:
        """Return the answer, and a function that shortens waits from then on, see `ServerClock.wait_ms`."""
        loop = asyncio.get_running_loop()
        self._on_call(name)
        sent_ms = loop.time() * 1000
        epoch, seen_ms = self._clock.read(sent_ms)
        ahead_ms = self._rules.ahead_for(self._clock.round_trip_ms)
        await self._network.way()
        if self._server.redis.is_away:
            raise StoreUnavailable("unreachable")
        self._server.policy.rules = self._rules  # which come with each call, as to the script
        answer = step(self._server.reading(epoch, seen_ms, ahead_ms=ahead_ms))
        epoch, now_ms = self._server.policy.epoch, self._server.policy.now
        await self._network.way()
        if self._network.loses():
            await asyncio.sleep(MemoryStore.TIMEOUT_S)
            raise StoreUnavailable("timed out")
        arrived_ms = loop.time() * 1000
        self._clock.answered(epoch, now_ms, sent_ms=sent_ms, now_ms=arrived_ms)
        window_ms = self._rules.window_ms
        return answer, partial(self._clock.wait_ms, since_ms=now_ms, within_ms=window_ms, now_ms=arrived_ms)
