"""Fetches of a block outside of any line: slots, jobs, and a record of the calls of observers."""

from service.gateway.fetch import BlockJob, Fetching
from service.gateway.list_calls import ListCalls
from service.model.blocks import Block, BlockKey, CachedBlock
from service.model.origin import NOBODY, Payer
from service.model.queries import Range
from service.upstream.apps import UpstreamApp
from service.upstream.call_events import UpstreamCall, UpstreamCallEnd
from tests.simulation.sim_replica import BLOCK_SIZE
from tests.simulation.small_world import APP, WALL_S, SmallWorld, query_of

KEY = BlockKey(query=query_of("direct"), index=0)


class Slot:
    """A slot that can always be held; `holds` counts how often it was."""

    payer = Payer(caller="c", origin=NOBODY, waited_s=0.25)

    def __init__(self) -> None:
        self.holds = 0

    async def hold(self) -> None:
        """Count."""
        self.holds += 1


class Watched:
    """Records what observers are called with."""

    def __init__(self) -> None:
        self.ends: list[UpstreamCallEnd] = []
        self.begun: list[UpstreamCall] = []
        self.traced: list[UpstreamCallEnd] = []
        self.fields = (("traceparent", "00-abc-def-01"),)

    def begin(self, call: UpstreamCall) -> "Watched":
        """See `CallTracing.begin`."""
        self.begun.append(call)
        return self

    def sends(self, method: str, url: str) -> None:
        """See `CallTrace.sends`."""

    def answered(self, status: int) -> None:
        """See `CallTrace.answered`."""

    def end(self, end: UpstreamCallEnd) -> None:
        """See `CallTrace.end`."""
        self.traced.append(end)


def fetching_of(world: SmallWorld, watched: Watched, *, replica: int = 0, pause_max_s: float = 60.0) -> Fetching:
    """Return a fetching of the app on a replica's cache, outside the line."""
    app = UpstreamApp(name=APP, sdkappid=1, admin="a", hosts=())
    cache = world.replicas[replica].cache

    def clock() -> float:
        return WALL_S + world.loop.time()

    return Fetching(
        app=app,
        calls=ListCalls(app, world.upstream, cache, block_size=BLOCK_SIZE, align_s=60, clock=clock),
        stops=world.upstream,
        cache=cache,
        attempts=3,
        pause_s=2.0,
        pause_max_s=pause_max_s,
        clock=clock,
        on_call=(watched.ends.append,),
        tracing=watched,
    )


def job_of(
    fetching: Fetching, *, known: bytes = b"", is_fresh: bool = False, seen: CachedBlock | None = None
) -> BlockJob:
    """Return a job for the first block of a list, of a request that has seen a block, or only the head of one."""
    seen = seen or CachedBlock(stored=None, head=known)
    return BlockJob(fetching, KEY, caller="c", seen=seen, is_fresh=lambda _: is_fresh)


def block_at(fetched_at_s: float, *, unfinished: bool = False) -> Block:
    """Return an empty block that was fetched at a virtual time."""
    return Block(
        fetched_at_ms=int((WALL_S + fetched_at_s) * 1000),
        range=Range(since_s=0, until_s=1),
        total=0,
        settled=False,
        ends=(),
        body=b"",
        unfinished=unfinished,
    )
