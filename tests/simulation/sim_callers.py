"""Callers of a simulation: each sends requests in its own way, to any replica, until the plan's end."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec

from service.model.callers import Caller
from service.model.errors import TaskgateError
from service.model.freshness import CacheDirectives
from service.model.pages import Chunk, Page, PageRequest, Source
from service.model.queries import FromNow, Query, Slice
from tests.simulation.invariants import Answered, Violated, answer_is_in_time, block_is_passed_on, page_is_right
from tests.simulation.plan import APPS, CallerPlan
from tests.simulation.sim_replica import Replica
from tests.simulation.sim_upstream import REFUSED_KEYWORD

if TYPE_CHECKING:
    from tests.simulation.world import World

DIRECTIVES = {
    "insist": CacheDirectives(no_cache=True),
    "bounded": CacheDirectives(max_age_s=1),
    "cached only": CacheDirectives(only_if_cached=True),
}
BURST = 12
OUTSTANDING = 6


class SimCaller:
    """One caller of the plan."""

    def __init__(self, plan: CallerPlan, world: "World") -> None:
        self._plan = plan
        self._world = world
        self._chance = world.chance(f"caller {plan.name}")
        self._asked = 0
        self._caller = Caller(name=plan.name, apps=frozenset(APPS), weight=plan.weight, waiting_max=10, wait_max_s=60)

    async def run(self, until_s: float) -> None:
        """Send requests until then, and end when all have been answered."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._plan.starts_s)
        while loop.time() < until_s:
            await self._act()
            await asyncio.sleep(self._plan.period_s * self._chance.uniform(0.5, 1.5))

    async def _act(self) -> None:
        query = self._query(self._plan.query)
        match self._plan.kind:
            case "walk":
                for offset in range(0, 35, 7):
                    await self._ask(query, Slice(offset=offset, limit=7))
            case "stream":
                offset: int | None = 0
                while offset is not None:
                    chunk = await self._ask(query, Slice(offset=offset, limit=1_000), whole=True)
                    offset = chunk.following if isinstance(chunk, Chunk) else None
            case "hang up":
                await self._ask(query, Slice(offset=0, limit=5), hangs_up_s=self._chance.uniform(0, 0.5))
            case "burst":
                await self._all(BURST)
            case "backlog":
                await self._all(OUTSTANDING, endless=True)
            case _:
                await self._ask(query, Slice(offset=self._chance.choice([0, 0, 5, 20]), limit=8))

    def _query(self, number: int) -> Query:
        keyword = REFUSED_KEYWORD if number == 4 and self._plan.app == APPS[1] else f"q{number}"
        return Query(app=self._plan.app, since=FromNow(offset_s=-3600), until=FromNow(offset_s=0), keyword=keyword)

    async def _all(self, count: int, *, endless: bool = False) -> None:
        """Request so many lists that nobody else requests, at the same time, repeatedly if `endless`."""
        loop = asyncio.get_running_loop()

        async def one() -> None:
            while True:
                self._asked += 1
                query = self._query(self._asked * 1_000 + self._plan.query)
                if await self._ask(query, Slice(offset=0, limit=5)) is not None:
                    self._world.served_s.setdefault(self._plan.name, []).append(loop.time())
                if not endless or loop.time() > self._world.plan.duration_s:
                    return

        try:
            async with asyncio.TaskGroup() as asking:
                for _ in range(count):
                    asking.create_task(one())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _ask(
        self, query: Query, slice_: Slice, *, whole: bool = False, hangs_up_s: float | None = None
    ) -> Page | Chunk | None:
        """Send one request to any replica; return None if it was refused, or the replica died."""
        world, plan, loop = self._world, self._plan, asyncio.get_running_loop()
        if not world.replicas:
            await asyncio.sleep(0.1)
            return None
        replica = self._chance.choice(world.replicas)
        request = PageRequest(
            caller=msgspec.structs.replace(self._caller, weight=plan.weight * replica.weights_by),
            query=query,
            slice=slice_,
            patience_s=plan.patience_s,
            directives=DIRECTIVES.get(plan.kind, CacheDirectives()),
        )
        asked_s, connected_since_s = loop.time(), replica.connected_since_s
        world.requests += 1
        task = replica.run(replica.gateway.chunk(request) if whole else replica.gateway.page(request))
        if hangs_up_s is not None:
            loop.call_later(hangs_up_s, task.cancel)
        answer = await self._answer(task, replica, query, asked_s=asked_s)
        if isinstance(answer, (Page, Chunk)):
            answered = Answered(
                app=plan.app,
                keyword=query.keyword or "",
                asked_s=asked_s,
                ended_s=loop.time(),
                connected_since_s=max(connected_since_s, replica.connected_since_s),
                no_cache=request.directives.no_cache,
                source=answer.source,
                titles=_titles(answer),
            )
            agree = not any("clock steps" in fault.kind for fault in world.plan.faults)
            page_is_right(answered, world.upstream.served, world.purges, clocks_agree=agree)
            if world.disturbed_until_s < asked_s:
                block_is_passed_on(answered, world.upstream.served)
        return answer

    async def _answer(
        self, task: "asyncio.Task[Any]", replica: Replica, query: Query, *, asked_s: float
    ) -> Page | Chunk | None:
        world, plan, loop = self._world, self._plan, asyncio.get_running_loop()
        answer, said = None, "hung up, or the replica died"
        await asyncio.wait([task], timeout=plan.patience_s + 60)
        if not task.done():
            raise Violated("late", f"{plan.name} asks {replica.name} at {asked_s:.2f} s and is never answered")
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, TaskgateError):
                raise error
            answer = None if error is not None else task.result()
            said = type(error).__name__ if answer is None else answer.source
        if said != Source.HIT:
            what = f"{replica.name} for {query.app}/{query.keyword} at {asked_s:.3f}"
            world.note(f"{plan.name} ({plan.kind}) asked {what}: {said}")
        slack_s = 1.0 if any("lost" in fault.kind or "slow" in fault.kind for fault in world.plan.faults) else 0.2
        answer_is_in_time(
            asked_s=asked_s,
            ended_s=loop.time(),
            patience_s=plan.patience_s,
            slack_s=slack_s,
            what=f"{plan.name} of {replica.name} ({said})",
        )
        return answer


def _titles(answer: Page | Chunk) -> tuple[str, ...]:
    texts = answer.records if isinstance(answer, Chunk) else (b"[" + answer.body + b"]",)
    decoded = [json.loads(text) for text in texts]
    tasks = decoded if isinstance(answer, Chunk) else decoded[0]
    return tuple(dict.fromkeys(task["title"] for task in tasks))
