"""The upstream of a simulation: lists that can be told apart, and every way to fail."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from service.model.calls import CallKind, budget_name
from service.model.errors import CallsStopped, QueryRefused, Throttled, UpstreamHTTPStatus, UpstreamTimeout
from service.model.queries import Query, Range
from service.model.tasks import Listing, Task
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import CallTrace
from tests.tasks import bare_task

CALL_TIMEOUT_S = 4.0
REFUSED_KEYWORD = "refused"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """One call that was answered: when it was sent and answered, in virtual time."""

    app: str
    sent_at_s: float
    answered_at_s: float


class SimUpstream:
    """Answers calls of all replicas. `arrived_at_s` are the times at which calls were counted, by budget.

    Tasks `total` and above are unknown.
    """

    def __init__(
        self,
        chance: random.Random,
        *,
        round_trip_s: tuple[float, float],
        transit_s: float,
        slow_connects: float,
        total: int,
    ) -> None:
        self.round_trip_s = round_trip_s
        self.mood = "well"
        self.total = total
        self.arrived_at_s: dict[str, list[float]] = {}
        self.served: list[Served] = []
        self.busy_s = 0.0
        self._chance = chance
        self._chances = {CallKind.LIST: chance, CallKind.GET: random.Random("single tasks")}
        self._slow_connects = slow_connects
        self._way_max_s = transit_s / 2 - 0.002

    async def fetch(
        self,
        app: UpstreamApp,
        query: Query,
        range_: Range,
        *,
        offset: int,
        want: int,
        before_send: Callable[[], Awaitable[None]],
        trace: CallTrace,
    ) -> Listing:
        """See `ListUpstream.fetch`."""
        del range_, trace
        await self._answer(app, CallKind.LIST, before_send, is_refused=query.keyword == REFUSED_KEYWORD)
        return self._listing(app.name, query, offset=offset, want=want)

    async def get_task(
        self, app: UpstreamApp, task_id: int, *, before_send: Callable[[], Awaitable[None]], trace: CallTrace
    ) -> Task | None:
        """See `TaskUpstream.get_task`."""
        del trace
        await self._answer(app, CallKind.GET, before_send)
        title = f"{app.name}/task/{len(self.served) - 1}"
        return bare_task(task_id, title=title) if task_id < self.total else None

    async def _answer(
        self,
        app: UpstreamApp,
        kind: CallKind,
        before_send: Callable[[], Awaitable[None]],
        *,
        is_refused: bool = False,
    ) -> None:
        """Receive a call and get as far as its answer. Raise UpstreamError if the mood is bad."""
        loop, chance = asyncio.get_running_loop(), self._chances[kind]
        slow_connect = chance.random() < self._slow_connects
        await asyncio.sleep(chance.uniform(0.1, 0.6) if slow_connect else chance.uniform(0, 0.01))
        await before_send()
        sent_at_s = loop.time()
        round_trip_s = chance.uniform(*self.round_trip_s)
        way_s = min(chance.uniform(0, round_trip_s), max(self._way_max_s, 0.0))
        self.arrived_at_s.setdefault(budget_name(app.name, kind), []).append(sent_at_s + way_s)
        mood = self.mood
        if mood == "hangs" or (mood == "flaky" and chance.random() < 0.2):
            await asyncio.sleep(CALL_TIMEOUT_S)
            raise UpstreamTimeout("no answer", app=app.name)
        await asyncio.sleep(round_trip_s)
        self.busy_s += loop.time() - sent_at_s
        if mood == "fails" or (mood == "flaky" and chance.random() < 0.3):
            raise UpstreamHTTPStatus(500, app=app.name)
        if mood == "throttles":
            raise Throttled(app=app.name, code=60007, text="too often", advice="")
        if is_refused:
            raise QueryRefused(app=app.name, code=90104, text="no such list", advice="")
        self.served.append(Served(app=app.name, sent_at_s=sent_at_s, answered_at_s=loop.time()))

    def stopped(self, app: UpstreamApp, kind: CallKind) -> CallsStopped | None:
        """Calls are never stopped."""
        del app, kind

    def _listing(self, app: str, query: Query, *, offset: int, want: int) -> Listing:
        title = f"{app}/{query.keyword}/{len(self.served) - 1}"
        tasks = tuple(bare_task(number, title=title) for number in range(offset, min(offset + want, self.total)))
        return Listing(tasks=tasks, total=self.total)
