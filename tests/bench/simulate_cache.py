"""How many upstream calls ten minutes of many callers cost: without a cache, with one by exact page, with blocks.

Pure: the clock is simulated, and the rules are the gateway's own (`service.model.freshness.judge`, `Slice.blocks`).
Run by `make bench-simulation`.
"""

import bisect
import itertools
import random
from collections import deque
from collections.abc import Callable

import msgspec

from service.model.blocks import Block
from service.model.freshness import CacheDirectives, Freshness, Lifetimes, judge
from service.model.queries import Range, Slice

CALLERS = 200
SLICES = 500
QUERIES = 25
LIMIT = 20
ZIPF = 1.1
DURATION_S = 600.0
EACH_ASKS_EVERY_S = 2.0
CALL_S = 0.1
CALLS, WINDOW_S = 5, 1.0
LIFETIMES = Lifetimes(fresh_s=15, settled_s=600, refusal_s=60, stale_while_revalidate_s=60, stale_if_error_s=3600)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request: when, and for which slice of which query."""

    at_s: float
    query: int
    slice: Slice


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What it came to. `unfit` are calls that a request waited for and that the budget would have put off."""

    requests: int
    calls: int
    unfit: int


class Budget:
    """Calls in a window, counted at the moment at which they are wanted."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()

    def fits(self, now_s: float) -> bool:
        """Whether a call fits now; if so it is made."""
        while self._recent and self._recent[0] <= now_s - WINDOW_S:
            self._recent.popleft()
        if len(self._recent) >= CALLS:
            return False
        self._recent.append(now_s)
        return True


def requests(*, seed: int, duration_s: float = DURATION_S) -> list[Asked]:
    """All callers' requests, each at its own random pace; the slices' popularity follows Zipf's law."""
    chance = random.Random(seed)
    slices = [
        (query, Slice(offset=page * LIMIT, limit=LIMIT))
        for page in range(SLICES // QUERIES)
        for query in range(QUERIES)
    ]
    chance.shuffle(slices)
    cumulated = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, SLICES + 1)))
    asked: list[Asked] = []
    for _ in range(CALLERS):
        at_s = chance.expovariate(1 / EACH_ASKS_EVERY_S)
        while at_s < duration_s:
            query, slice_ = slices[bisect.bisect(cumulated, chance.random() * cumulated[-1])]
            asked.append(Asked(at_s=at_s, query=query, slice=slice_))
            at_s += chance.expovariate(1 / EACH_ASKS_EVERY_S)
    return sorted(asked, key=lambda each: each.at_s)


def without_cache(asked: list[Asked]) -> Cost:
    """Every request is a call."""
    budget = Budget()
    unfit = sum(not budget.fits(each.at_s) for each in asked)
    return Cost(requests=len(asked), calls=len(asked), unfit=unfit)


def by_exact_page(asked: list[Asked]) -> Cost:
    """A usual response cache: one entry for each slice, fresh for as long as ours, filled by whoever finds it empty."""
    budget, calls, unfit = Budget(), 0, 0
    filled_s: dict[tuple[int, Slice], float] = {}
    for each in asked:
        key = (each.query, each.slice)
        if not filled_s.get(key, -1e9) <= each.at_s < filled_s.get(key, -1e9) + LIFETIMES.fresh_s:
            calls += 1
            unfit += not budget.fits(each.at_s)
            if key not in filled_s or each.at_s >= filled_s[key] + LIFETIMES.fresh_s:
                filled_s[key] = each.at_s + CALL_S
    return Cost(requests=len(asked), calls=calls, unfit=unfit)


def by_block(asked: list[Asked], *, block_size: int = 100) -> Cost:
    """Ours: shared blocks, joined calls, and renewals that wait for a turn which nobody else wants."""
    budget, calls, unfit = Budget(), 0, 0
    blocks: dict[tuple[int, int], Block] = {}
    for each in asked:
        for index in each.slice.blocks(block_size):
            key = (each.query, index)
            match _verdict(blocks.get(key), each.at_s):
                case Freshness.FRESH:
                    continue
                case Freshness.RENEW if not budget.fits(each.at_s):
                    continue  # served stale; the renewal waits, and the next request looks again
                case Freshness.RENEW:
                    pass
                case _:
                    unfit += not budget.fits(each.at_s)
            calls += 1
            blocks[key] = _block(each.at_s + CALL_S)
    return Cost(requests=len(asked), calls=calls, unfit=unfit)


def _verdict(block: Block | None, now_s: float) -> Freshness:
    if block is None:
        return Freshness.USELESS
    return judge(block, lifetimes=LIFETIMES, directives=CacheDirectives(), now_ms=int(now_s * 1000))


def _block(at_s: float) -> Block:
    return Block(
        fetched_at_ms=int(at_s * 1000),
        range=Range(since_s=0, until_s=1),
        total=SLICES // QUERIES * LIMIT,
        settled=False,
        ends=(),
        body=b"",
    )


POLICIES: tuple[tuple[str, Callable[[list[Asked]], Cost]], ...] = (
    ("no cache", without_cache),
    ("a cache by exact page", by_exact_page),
    ("Taskgate's blocks", by_block),
)


def table(*, seed: int = 1) -> str:
    """The three beside each other, as Markdown."""
    asked = requests(seed=seed)
    lines = ["| | requests | upstream calls | calls that did not fit |", "|---|---:|---:|---:|"]
    for name, policy in POLICIES:
        cost = policy(asked)
        lines.append(f"| {name} | {cost.requests:,} | {cost.calls:,} | {cost.unfit:,} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(
        f"{CALLERS} callers, each once in {EACH_ASKS_EVERY_S:g} s, {SLICES} slices of {LIMIT} in {QUERIES} queries, "
        f"Zipf {ZIPF}, {DURATION_S:g} s; {CALLS} calls in {WINDOW_S:g} s; fresh {LIFETIMES.fresh_s:g} s\n"
    )
    print(table())
