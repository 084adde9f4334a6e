"""The elements of random histories of schedulers: callers, latencies, events, calls, and replicas in both worlds."""

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import strategies as st

from service.budget.scheduler.interfaces import Turn
from tests.contract.scheduler_world import World

BACKGROUND = ("~ahead", "~renewal")
CALLERS = [f"c{number:02}" for number in range(17)] + ["~unknown", *BACKGROUND]
WEIGHTS = {caller: [1.0, 3.0, 0.1, 0.7, 2.5][number % 5] for number, caller in enumerate(CALLERS)}
LATENCY = st.sampled_from([0, 1, 1, 1, 5, 20, 80])
HEADS = st.sampled_from([b"", b"an older fetch  ", b"the newest fetch", bytes(range(0, 256, 16)), b"short"])
BLOCKS = st.sampled_from([f"b{number}" for number in range(4)])
COMMON = ("the_turn_comes", "someone_asks", "ticks", "begins", "begins_again", "ends", "time_passes")
RARE = ("someone_leaves", "dies", "the_servers_clock_steps", "redis_loses_its_data", "a_block_is_stored")
KINDS = (*["the_turn_comes"] * 12, *COMMON * 2, *RARE)
Draw = Callable[[st.SearchStrategy[Any]], Any]


class Use(msgspec.Struct):
    """A call that may have been made: it arrives between `first` and `last`, in true time; its begin was sent at
    `asked`.
    """

    turn: int
    block: str
    asked: float
    first: float
    last: float
    lease_ends: float


class Replica:
    """One replica in both worlds, with its demand and the answers that it got."""

    def __init__(self, world: World, name: str) -> None:
        self.local = world.local(name)
        self.shared = world.shared(name)
        self.waiting: dict[str, list[float]] = {}
        self.turns: list[Turn] = []
        self.begun: dict[int, str] = {}
        self.due = 0

    def serve(self) -> None:
        """Serve one of the waiting callers."""
        for caller in list(self.waiting)[:1]:
            self.waiting[caller].pop()
            if not self.waiting[caller]:
                del self.waiting[caller]
