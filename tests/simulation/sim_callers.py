"""Callers of a simulation: each sends requests in its own way, to any replica, until the plan's end."""

import asyncio
import json
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from service.model.callers import Caller
from service.model.errors import TaskgateError
from service.model.freshness import CacheDirectives
from service.model.pages import Chunk, FoundTask, Page, PageRequest, Source, TaskRequest
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
            case "task" | "unknown task":
                first = 1_000 if self._plan.kind == "unknown task" else 0
                await self._ask_task(first + self._chance.randint(1, 12))
            case "hang up":
                await self._ask(query, Slice(offset=0, limit=5), hangs_up_s=self._chance.uniform(0, 0.5))
            case "burst":
                await self._all(BURST)
            case "backlog":
                await self._all(OUTSTANDING, endless=True)
            case "task backlog":
                await self._all_tasks(OUTSTANDING)
            case _:
                await self._ask(query, Slice(offset=self._chance.choice([0, 0, 5, 20]), limit=8))

    def _query(self, number: int) -> Query:
        keyword = REFUSED_KEYWORD if number == 4 and self._plan.app == APPS[1] else f"q{number}"
        return Query(app=self._plan.app, since=FromNow(offset_s=-3600), until=FromNow(offset_s=0), keyword=keyword)

    async def _all(self, count: int, *, endless: bool = False) -> None:
        """Request this many lists that no other caller requests, at the same time, repeatedly if `endless`."""
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

    async def _all_tasks(self, count: int) -> None:
        """Request this many tasks that no other caller requests, at the same time, until the plan's end."""

        async def one() -> None:
            while asyncio.get_running_loop().time() < self._world.plan.duration_s:
                self._asked += 1
                await self._ask_task(1_000_000 * (self._plan.query + 1) + self._asked)

        async with asyncio.TaskGroup() as asking:
            for _ in range(count):
                asking.create_task(one())

    async def _ask(
        self, query: Query, slice_: Slice, *, whole: bool = False, hangs_up_s: float | None = None
    ) -> Page | Chunk | None:
        """Send one request to any replica; return None if it was refused, or the replica died."""
        plan = self._plan
        replica = await self._some_replica()
        if replica is None:
            return None
        request = PageRequest(
            caller=msgspec.structs.replace(self._caller, weight=plan.weight * replica.weights_by),
            query=query,
            slice=slice_,
            patience_s=plan.patience_s,
            directives=DIRECTIVES.get(plan.kind, CacheDirectives()),
        )
        work = replica.gateway.chunk(request) if whole else replica.gateway.page(request)
        no_cache = request.directives.no_cache
        answer = await self._answer(replica, work, query.keyword, no_cache=no_cache, hangs_up_s=hangs_up_s)
        return answer if isinstance(answer, (Page, Chunk)) else None

    async def _some_replica(self) -> Replica | None:
        if self._world.replicas:
            return self._chance.choice(self._world.replicas)
        await asyncio.sleep(0.1)
        return None

    async def _ask_task(self, task_id: int) -> None:
        """Send one request for a task to any replica."""
        plan, replica = self._plan, await self._some_replica()
        if replica is None:
            return
        request = TaskRequest(
            caller=self._caller,
            app=plan.app,
            id=task_id,
            patience_s=plan.patience_s,
            directives=CacheDirectives(no_cache=self._chance.random() < 0.2),
        )
        await self._answer(replica, replica.gateway.task(request), None, no_cache=request.directives.no_cache)

    async def _answer(
        self,
        replica: Replica,
        work: Coroutine[Any, Any, Any],
        keyword: str | None,
        *,
        no_cache: bool = False,
        hangs_up_s: float | None = None,
    ) -> Page | Chunk | FoundTask | None:
        """Let a replica do the work of a request and judge its answer."""
        world, loop = self._world, asyncio.get_running_loop()
        asked_s, connected_since_s = loop.time(), replica.connected_since_s
        world.requests += 1
        task = replica.run(work)
        if hangs_up_s is not None:
            loop.call_later(hangs_up_s, task.cancel)
        answer = await self._ended(task, replica, keyword, asked_s=asked_s)
        if answer is not None:
            answered = Answered(
                app=self._plan.app,
                keyword=keyword,
                asked_s=asked_s,
                ended_s=loop.time(),
                connected_since_s=max(connected_since_s, replica.connected_since_s),
                no_cache=no_cache,
                source=answer.source,
                titles=_titles(answer),
            )
            agree = not any("clock steps" in fault.kind for fault in world.plan.faults)
            page_is_right(answered, world.upstream.served, world.purges, clocks_agree=agree)
            if world.disturbed_until_s < asked_s:
                block_is_passed_on(answered, world.upstream.served)
        return answer

    async def _ended(
        self, task: "asyncio.Task[Any]", replica: Replica, keyword: str | None, *, asked_s: float
    ) -> Page | Chunk | FoundTask | None:
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
            what = f"{replica.name} for {plan.app}/{keyword or 'a task'} at {asked_s:.3f}"
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


def _titles(answer: Page | Chunk | FoundTask) -> tuple[str, ...]:
    texts = answer.records if isinstance(answer, Chunk) else (b"[" + answer.body + b"]",)
    decoded = [json.loads(text) for text in texts]
    tasks = decoded if isinstance(answer, Chunk) else decoded[0]
    return tuple(dict.fromkeys(task["title"] for task in tasks))
