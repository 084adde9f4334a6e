"""The line of one replica, on the policy itself: lines that share a policy are replicas that share a budget."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import HEARTBEAT_S, Line
from service.budget.scheduler.interfaces import Beginning, Begun, Rules, Ticked, Turn, WaitingCount, Wish
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy import Policy
from service.model.blocks import NOTHING, CachedBlock
from service.model.errors import ShuttingDown, StoreUnavailable, UpstreamTimeout, UpstreamUnreachable
from service.model.origin import FetchCost, Origin
from tests.queued_jobs import JobOfNothing, cached, text_of

RULES = Rules(calls=2, window_ms=100, transit_ms=40, turn_lease_ms=100, fetch_lease_ms=400, report_lease_ms=500)


class Blocks:
    """The blocks of the upstream and Redis, by name, and when each was called for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, float]] = []
        self.stored: dict[str, str] = {}
        self.lines: list[Line] = []
        self.took_s = 0.005

    def named(self) -> list[str]:
        """The blocks that were called for, in order."""
        return [name for name, _ in self.calls]


class BlockHere(JobOfNothing):
    """A job on `Blocks`; `ending` determines the result of a call."""

    def __init__(self, blocks: Blocks, name: str, ending: Callable[[int], str | CallFailed] | None = None) -> None:
        super().__init__(name)
        self._blocks = blocks
        self._ending = ending
        self._attempt = 0

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call, and take a while."""
        try:
            await slot.hold()
        except UpstreamUnreachable as exc:
            return CallFailed(error=exc)
        self._blocks.calls.append((self.block_key, _now_s()))
        await asyncio.sleep(self._blocks.took_s)
        self._attempt = attempt
        outcome = self.block_key.upper() if self._ending is None else self._ending(attempt)
        return cached(outcome) if isinstance(outcome, str) else outcome

    async def keep(self) -> None:
        """Store the result of the last call."""
        outcome = self.block_key.upper() if self._ending is None else self._ending(self._attempt)
        assert isinstance(outcome, str)
        self._blocks.stored[self.block_key] = outcome

    async def look(self) -> CachedBlock:
        """Return the stored block."""
        stored = self._blocks.stored.get(self.block_key)
        return NOTHING if stored is None else cached(stored)


class Telling(LocalScheduler):
    """A LocalScheduler that notifies the other lines when a fetch is done, as Redis does, and can be cut off.

    With `sees_stored` it finds stored blocks, as the script does.
    """

    def __init__(self, policy: Policy, replica: str, blocks: Blocks) -> None:
        super().__init__(policy, lambda: _now_s() * 1000, replica=replica, stored=self._head_of)
        self._blocks = blocks
        self.sees_stored = False
        self.tells = True
        self.away = False
        self.slow_s = 0.0
        self.fault: Exception | None = None
        self.begin_fault: Exception | None = None
        self.grants = True

    async def tick(
        self,
        waiting: tuple[WaitingCount, ...],
        *,
        returned: tuple[int, ...],
        quiet: bool,
        wants_board: bool,
        wish: Wish | None = None,
    ) -> Ticked:
        """Tick, unless cut off."""
        self._reach()
        wish = wish if self.grants else None
        ticked = await super().tick(waiting, returned=returned, quiet=quiet, wants_board=wants_board, wish=wish)
        await asyncio.sleep(self.slow_s)
        return ticked

    async def begin(self, turn: int, *, block: str, block_key: str, known: bytes) -> Beginning:
        """Begin, unless cut off."""
        self._reach()
        if self.begin_fault is not None:
            fault, self.begin_fault = self.begin_fault, None
            raise fault
        return await super().begin(turn, block=block, block_key=block_key, known=known)

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """End a fetch, and notify."""
        self._reach()
        await super().done(turn, block=block, pause_ms=pause_ms, pause_reason=pause_reason, took_ms=took_ms)
        for line in self._blocks.lines if self.tells else ():
            line.heard(block)

    def _head_of(self, block_key: str) -> bytes:
        return self._blocks.stored.get(block_key, "").encode() if self.sees_stored else b""

    def _reach(self) -> None:
        if self.away:
            raise StoreUnavailable("unreachable")
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault


@pytest.fixture
def blocks() -> Blocks:
    """Nothing stored, nothing called."""
    return Blocks()


@asynccontextmanager
async def lines(
    blocks: Blocks, count: int = 1, *, rules: Rules = RULES, grace_s: float = 0.2
) -> AsyncIterator[tuple[list[Line], list[Telling]]]:
    """Lines of `count` replicas on one policy whose first quiet window is over."""
    before = asyncio.all_tasks()
    policy = Policy(rules)
    schedulers = [Telling(policy, f"r{number}", blocks) for number in range(count)]
    made: list[Line] = [Line(scheduler, app="shop", rules=rules, redis_grace_s=grace_s) for scheduler in schedulers]
    blocks.lines = made
    for line in made:
        line.start()
    while (await schedulers[0].tick((), returned=(), quiet=False, wants_board=False)).free < rules.calls:
        await asyncio.sleep(0.01)
    try:
        yield made, schedulers
    finally:
        for scheduler in schedulers:
            scheduler.away = False
        await asyncio.gather(*(line.aclose() for line in made))
        assert asyncio.all_tasks() - before <= {asyncio.current_task()}


def _ask(
    line: Line,
    job: BlockHere,
    *,
    caller: str = "x",
    patience_s: float = 5.0,
    bound: int = 100,
    background: bool = False,
    cost: FetchCost | None = None,
) -> "asyncio.Task[Fetched | TooLong | LineIsFull]":
    return asyncio.create_task(
        line.fetch(
            job,
            caller=caller,
            weight=1.0,
            patience_s=patience_s,
            bound=bound,
            origin=Origin(cost=cost),
            background=background,
        )
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _until(condition: Callable[[], bool], *, within_s: float = 2.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.002)


async def test_an_uncontended_block_comes_at_once(blocks: Blocks) -> None:
    """With a slot free, the only wait is for the call."""
    async with lines(blocks) as ([line], _):
        started_s = _now_s()
        fetched = await _ask(line, BlockHere(blocks, "a"))
        assert isinstance(fetched, Fetched)
        assert (text_of(fetched.value), fetched.joined) == ("A", False)
        assert _now_s() - started_s < 0.1


async def test_calls_keep_the_limit_and_every_block_comes(blocks: Blocks) -> None:
    """Of twelve blocks at 2 in 100 ms, no window holds three, and none is forgotten."""
    async with lines(blocks, 3) as (made, _):
        names = [f"b{number}" for number in range(12)]
        asked = [_ask(made[number % 3], BlockHere(blocks, name)) for number, name in enumerate(names)]
        for name, task in zip(names, asked, strict=True):
            fetched = await task
            assert isinstance(fetched, Fetched)
            assert text_of(fetched.value) == name.upper()
    times = sorted(at for _, at in blocks.calls)
    assert len(times) == 12
    assert min(later - earlier for earlier, later in zip(times, times[2:], strict=False)) >= 0.1


async def test_a_hundred_requests_for_a_block_cost_one_call(blocks: Blocks) -> None:
    """From many callers on several replicas; one has paid, all others have joined."""
    async with lines(blocks, 3) as (made, _):
        asked = [_ask(made[n % 3], BlockHere(blocks, "a"), caller=f"c{n % 7}") for n in range(100)]
        fetched = [await task for task in asked]
    assert blocks.named() == ["a"]
    assert [isinstance(each, Fetched) and each.joined for each in fetched].count(False) == 1


async def test_whoever_comes_first_fetches_for_all(blocks: Blocks) -> None:
    """A caller with a backlog wants the same block as one without: both have it at the light caller's turn."""
    async with lines(blocks) as ([line], _):
        backlog = [_ask(line, BlockHere(blocks, f"b{n}"), caller="heavy") for n in range(10)]
        last = _ask(line, BlockHere(blocks, "wanted"), caller="heavy")
        light = _ask(line, BlockHere(blocks, "wanted"), caller="light")
        paid, joined = await light, await last
        assert isinstance(paid, Fetched)
        assert isinstance(joined, Fetched)
        assert (paid.joined, joined.joined) == (False, True)
        assert len(blocks.calls) < 6
        for task in backlog:
            await task
    assert blocks.named().count("wanted") == 1


async def test_only_the_background_comes_last(blocks: Blocks) -> None:
    """Unnamed service accounts (`~unknown`) get turns beside a backlog; blocks waiting in the background do not."""
    async with lines(blocks) as ([line], _):
        behind = [_ask(line, BlockHere(blocks, f"r{n}"), caller="renewal", background=True) for n in range(2)]
        backlog = [_ask(line, BlockHere(blocks, f"b{n}"), caller="busy") for n in range(8)]
        strangers = [_ask(line, BlockHere(blocks, f"u{n}"), caller="~unknown") for n in range(2)]
        assert all([isinstance(await task, Fetched) for task in strangers])
        assert not all(task.done() for task in backlog)
        assert not any(name.startswith("r") for name in blocks.named()[2:])
        assert all([isinstance(await task, Fetched) for task in (*backlog, *behind)])
    assert blocks.named()[-1].startswith("r")


async def test_who_hangs_up_costs_nothing(blocks: Blocks) -> None:
    """Of fifty blocks whose requests are cancelled none is fetched, and the next request is served at once."""
    async with lines(blocks) as ([line], [scheduler]):
        asked = [_ask(line, BlockHere(blocks, f"b{n}")) for n in range(50)]
        await _until(lambda: len(blocks.calls) == 2)
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        ticked = await scheduler.tick((), returned=(), quiet=False, wants_board=True)
        assert ticked.board is not None
        await asyncio.sleep(0.25)
        assert len(blocks.calls) <= 3
        started_s = _now_s()
        assert isinstance(await _ask(line, BlockHere(blocks, "again")), Fetched)
        assert _now_s() - started_s < 0.15


async def test_a_hopeless_wait_is_refused_at_once(blocks: Blocks) -> None:
    """At 2 in 100 ms the fortieth block waits two seconds: a patience of half a second is refused, with its place."""
    async with lines(blocks) as ([line], _):
        backlog = [_ask(line, BlockHere(blocks, f"b{n}")) for n in range(40)]
        await _until(lambda: len(blocks.calls) >= 2)
        started_s = _now_s()
        refused = await _ask(line, BlockHere(blocks, "late"), patience_s=0.5)
        assert _now_s() - started_s < 0.3
        assert isinstance(refused, TooLong)
        assert 30 < refused.place <= 41
        assert 1 < refused.estimate_s < 4
        assert isinstance(await _ask(line, BlockHere(blocks, "rare"), caller="y", patience_s=0.5), Fetched)
        for task in backlog:
            task.cancel()


async def test_patience_ends_in_line_but_not_in_a_call(blocks: Blocks) -> None:
    """A call in progress is waited for; a place in line is not."""
    blocks.took_s = 0.2
    async with lines(blocks, rules=RULES) as ([line], [scheduler]):
        assert isinstance(await _ask(line, BlockHere(blocks, "a"), patience_s=0.05), Fetched)
        await scheduler.tick((), returned=(), quiet=True, wants_board=False)
        assert isinstance(await _ask(line, BlockHere(blocks, "b"), patience_s=0.05), TooLong)


async def test_a_caller_may_wait_for_so_many_blocks(blocks: Blocks) -> None:
    """The bound counts blocks, not requests, and is each caller's own."""
    async with lines(blocks) as ([line], [scheduler]):
        await scheduler.tick((), returned=(), quiet=True, wants_board=False)
        held = [_ask(line, BlockHere(blocks, f"b{n}"), bound=3) for n in range(3)]
        await asyncio.sleep(0)
        assert await _ask(line, BlockHere(blocks, "b3"), bound=3) == LineIsFull(
            bound=3, estimate_s=pytest.approx(0.1, abs=2)
        )
        assert isinstance(await _ask(line, BlockHere(blocks, "b0"), bound=3), Fetched)
        assert isinstance(await _ask(line, BlockHere(blocks, "b3"), caller="y", bound=3), Fetched)
        await asyncio.gather(*held)


def _failing(times: int, *, again: bool = True, stop: bool = False) -> Callable[[int], str | CallFailed]:
    def ending(attempt: int) -> str | CallFailed:
        if attempt > times:
            return f"try {attempt}"
        return CallFailed(error=UpstreamTimeout("no answer", app="shop"), again=again, stop=stop)

    return ending


async def test_a_failed_call_is_tried_again_on_a_new_turn(blocks: Blocks) -> None:
    """Each try takes a slot, and is passed the attempt's number."""
    async with lines(blocks) as ([line], _):
        fetched = await _ask(line, BlockHere(blocks, "a", _failing(3)))
        assert isinstance(fetched, Fetched)
        assert text_of(fetched.value) == "try 4"
    times = [at for _, at in blocks.calls]
    assert len(times) == 4
    assert min(later - earlier for earlier, later in zip(times, times[2:], strict=False)) >= 0.1


async def test_what_a_failed_or_cancelled_request_has_cost_is_known(blocks: Blocks) -> None:
    """Wait, calls and their time are added to the request's cost, also if it is refused, fails or hangs up."""
    blocks.took_s = 0.1
    failed, joined, cancelled, refused = FetchCost(), FetchCost(), FetchCost(), FetchCost()
    async with lines(blocks) as ([line], [scheduler]):
        await scheduler.tick((), returned=(), quiet=True, wants_board=False)
        job = BlockHere(blocks, "a", _failing(9, again=False))
        asked = [_ask(line, job, cost=cost) for cost in (failed, joined)]
        await asyncio.wait(asked)
        assert all(isinstance(task.exception(), UpstreamTimeout) for task in asked)
        hanging = _ask(line, BlockHere(blocks, "b"), cost=cancelled)
        await _until(lambda: blocks.calls[-1][0] == "b")
        await asyncio.sleep(0.05)
        hanging.cancel()
        await asyncio.wait({hanging})
        await scheduler.tick((), returned=(), quiet=True, wants_board=False)
        scheduler.slow_s = 0.03
        assert isinstance(await _ask(line, BlockHere(blocks, "c"), patience_s=0.05, cost=refused), TooLong)
    assert (failed.calls, joined.calls, cancelled.calls, refused.calls) == (1, 0, 1, 0)
    assert min(failed.upstream_s, joined.upstream_s) >= 0.09
    assert cancelled.upstream_s >= 0.04
    assert failed.waited_s > 0.03  # the quiet window
    assert (refused.upstream_s, refused.waited_s) == (0.0, pytest.approx(0.03, abs=0.006))


async def test_a_final_failure_is_told_to_all_who_wait(blocks: Blocks) -> None:
    """And to nobody else: another block of the same app is still fetched."""
    async with lines(blocks) as ([line], _):
        job = BlockHere(blocks, "a", _failing(9, again=False))
        asked = [_ask(line, job, caller=caller) for caller in "xyz"]
        other = _ask(line, BlockHere(blocks, "b"))
        for task in asked:
            with pytest.raises(UpstreamTimeout):
                await task
        assert isinstance(await other, Fetched)
    assert blocks.named().count("a") == 1


async def test_who_comes_while_the_line_reports_itself_empty_is_not_forgotten(blocks: Blocks) -> None:
    """A tick that reports an empty line is still in progress when the next request arrives."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.slow_s = 0.03
        for number in range(4):
            with pytest.raises(UpstreamTimeout):
                await _ask(line, BlockHere(blocks, "a", _failing(9, again=False)))
            await asyncio.sleep(0.01 * number)
            assert isinstance(await asyncio.wait_for(_ask(line, BlockHere(blocks, "a")), 1), Fetched)
            del blocks.stored["a"]


async def test_the_line_survives_a_fault_of_its_scheduler(blocks: Blocks) -> None:
    """Impossible errors are logged; waiting requests are served or get the error, and the next one is served."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.fault = ZeroDivisionError()
        assert isinstance(await asyncio.wait_for(_ask(line, BlockHere(blocks, "a")), 1), Fetched)
        scheduler.begin_fault, scheduler.grants = ZeroDivisionError(), False
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(_ask(line, BlockHere(blocks, "b")), 1)
        assert isinstance(await asyncio.wait_for(_ask(line, BlockHere(blocks, "c")), 1), Fetched)


async def test_a_stop_empties_the_line(blocks: Blocks) -> None:
    """With a wrong key no other block would fare better."""
    async with lines(blocks) as ([line], _):
        asked = [_ask(line, BlockHere(blocks, f"b{n}", _failing(9, again=False, stop=True))) for n in range(20)]
        for task in asked:
            with pytest.raises(UpstreamTimeout):
                await task
    assert len(blocks.calls) <= 2


async def test_a_fault_of_ours_frees_the_slot(blocks: Blocks) -> None:
    """An exception in a job is passed to the waiting requests, and the line goes on."""

    def broken(attempt: int) -> str | CallFailed:
        raise ZeroDivisionError

    async with lines(blocks) as ([line], _):
        for _ in range(3):
            with pytest.raises(ZeroDivisionError):
                await _ask(line, BlockHere(blocks, "a", broken))
        assert isinstance(await _ask(line, BlockHere(blocks, "a")), Fetched)


async def test_a_lost_message_is_made_up_for(blocks: Blocks) -> None:
    """A replica that joins another's fetch looks for the block by itself if no message arrives."""
    blocks.took_s = 0.15
    async with lines(blocks, 2) as (made, schedulers):
        for scheduler in schedulers:
            scheduler.tells = False
        first = _ask(made[0], BlockHere(blocks, "a"))
        await _until(lambda: bool(blocks.calls))
        second = await _ask(made[1], BlockHere(blocks, "a"))
        assert isinstance(second, Fetched)
        assert second.joined
        await first
    assert blocks.named() == ["a"]


async def test_a_replica_that_dies_in_a_fetch_delays_it_by_its_lease(blocks: Blocks) -> None:
    """Requests that have joined wait in line again when the lease ends, and their replica then fetches."""
    async with lines(blocks, 2) as (made, schedulers):
        report = (WaitingCount(caller="x", weight=1.0, count=1, waited_ms=0),)
        [turn] = (await schedulers[0].tick(report, returned=(), quiet=False, wants_board=False)).turns
        beginning = await schedulers[0].begin(turn.id, block="a", block_key="a", known=b"")
        assert isinstance(beginning, Begun)
        await schedulers[0].tick((), returned=(), quiet=False, wants_board=False)
        started_s = _now_s()
        assert isinstance(await _ask(made[1], BlockHere(blocks, "a")), Fetched)
        assert 0.2 < _now_s() - started_s < 1.2
    assert blocks.named() == ["a"]


async def test_a_short_absence_of_redis_is_waited_out(blocks: Blocks) -> None:
    """Waiting requests keep waiting, and are served when Redis is back."""
    async with lines(blocks, grace_s=2.0) as ([line], [scheduler]):
        scheduler.away = True
        asked = _ask(line, BlockHere(blocks, "a"))
        await _until(lambda: line.is_cut_off)
        scheduler.away = False
        assert isinstance(await asked, Fetched)
        assert not line.is_cut_off


async def test_a_long_absence_of_redis_is_told(blocks: Blocks) -> None:
    """After the grace period waiting requests get the error, and new ones at once; no call is made."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.away = True
        with pytest.raises(StoreUnavailable):
            await _ask(line, BlockHere(blocks, "a"))
        started_s = _now_s()
        with pytest.raises(StoreUnavailable):
            await _ask(line, BlockHere(blocks, "a"))
        assert _now_s() - started_s < 0.1
        assert not blocks.calls


async def test_closing_ends_calls_and_refuses_who_waits(blocks: Blocks) -> None:
    """Requests served by a call in progress get its result; others are sent to another replica, at once."""
    blocks.took_s = 0.2
    async with lines(blocks) as ([line], [scheduler]):
        asked = [_ask(line, BlockHere(blocks, f"b{n}")) for n in range(5)]
        await _until(lambda: len(blocks.calls) == 2)
        await line.aclose()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Fetched] * 2 + [ShuttingDown] * 3
        with pytest.raises(ShuttingDown):
            await line.fetch(BlockHere(blocks, "a"), caller="x", weight=1.0, patience_s=1, bound=1)
        ticked = await scheduler.tick((), returned=(), quiet=False, wants_board=True)
        assert ticked.board is not None
        assert not ticked.board.ranks


async def test_a_slot_is_taken_anew_after_a_slow_connection(blocks: Blocks) -> None:
    """Transit counts from the sending: a call that was slow to connect asks again, and fails if its slot is gone."""

    class Slow(BlockHere):
        async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
            await asyncio.sleep(float(self.block_key))
            return await super().call(slot, attempt=attempt)

    async with lines(blocks) as ([line], _):
        assert isinstance(await _ask(line, Slow(blocks, "0.08")), Fetched)
        slow = _ask(line, Slow(blocks, "0.3"))
        others = [_ask(line, BlockHere(blocks, f"b{n}")) for n in range(6)]
        with pytest.raises(UpstreamUnreachable):
            await slow
        await asyncio.gather(*others)


@pytest.mark.parametrize("away", [False, True])
async def test_who_comes_with_an_empty_tick_is_asked_for(blocks: Blocks, away: bool) -> None:
    """During one, or after one that found Redis unavailable: the board is still new, yet another tick must follow."""
    async with lines(blocks) as ([line], [scheduler]):
        tick, goes_on = scheduler.tick, asyncio.Event()
        held = 0
        scheduler.grants = False

        async def holding(waiting: tuple[WaitingCount, ...], *, wants_board: bool, **named: object) -> Ticked:
            nonlocal held
            if not waiting and not goes_on.is_set():
                held += 1
                await goes_on.wait()
            return await tick(waiting, wants_board=wants_board, **named)  # type: ignore[arg-type]

        assert isinstance(await _ask(line, BlockHere(blocks, "a")), Fetched)
        scheduler.tick = holding  # type: ignore[method-assign]
        await _until(lambda: held == 1)
        scheduler.away = away
        if away:
            goes_on.set()
            await _until(lambda: line.is_cut_off)
        asked = _ask(line, BlockHere(blocks, "b"))
        await asyncio.sleep(0)
        goes_on.set()
        async with asyncio.timeout(1):
            if away:
                with pytest.raises(StoreUnavailable):
                    await asked
            else:
                assert isinstance(await asked, Fetched)


async def test_a_look_tells_the_board(blocks: Blocks) -> None:
    """Everyone who waits anywhere is reported, and with the scheduler unavailable that nothing is known."""
    async with lines(blocks, 2) as ([one, other], schedulers):
        asked = [_ask(one, BlockHere(blocks, f"b{n}")) for n in range(8)]
        await _until(lambda: bool(blocks.calls))
        looked = await other.look()
        assert looked is not None
        assert looked.board is not None
        assert [(rank.caller, rank.count > 2) for rank in looked.board.ranks] == [("x", True)]
        assert sum(row.count for row in one.waiting()) > 2
        assert other.waiting() == ()
        for task in asked:
            task.cancel()
        schedulers[1].away = True
        async with asyncio.timeout(5):
            while await other.look() is not None:  # what it knows may be shown for a quarter of a second
                await asyncio.sleep(0.01)


async def test_looks_are_few(blocks: Blocks) -> None:
    """A hundred looks cost one tick, and so do those of the next quarter of a second."""
    async with lines(blocks) as ([line], [scheduler]):
        ticks = 0
        tick = scheduler.tick

        async def counting(*args: object, **named: object) -> Ticked:
            nonlocal ticks
            ticks += 1
            return await tick(*args, **named)  # type: ignore[arg-type]

        scheduler.tick = counting  # type: ignore[method-assign]
        await asyncio.gather(*(line.look() for _ in range(100)))
        for _ in range(10):
            await line.look()
        assert ticks == 1


class Unreadable(BlockHere):
    """A job that finds a value that it can't use, or that can't look at all."""

    def __init__(self, blocks: Blocks, name: str, *, fails: bool) -> None:
        super().__init__(blocks, name)
        self.looks = 0
        self._fails = fails

    async def look(self) -> CachedBlock:
        """A head and no block."""
        self.looks += 1
        if self._fails:
            raise StoreUnavailable("timed out")
        return CachedBlock(stored=None, head=self._blocks.stored.get(self.block_key, "").encode())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_stored_value_of_no_use_is_looked_at_once_and_replaced(blocks: Blocks, fails: bool) -> None:
    """A value that is unreadable or unavailable costs one look and one more turn; then the block is fetched."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.sees_stored = True
        blocks.stored["a"] = "of another format"[:16]
        job = Unreadable(blocks, "a", fails=fails)
        fetched = await _ask(line, job, patience_s=2.0)
        assert isinstance(fetched, Fetched)
        assert not fetched.joined
        assert job.looks == 1
        assert line.turn_ends == {("x", "known"): 1, ("x", "used"): 1}


async def test_what_another_replica_has_stored_meanwhile_is_served(blocks: Blocks) -> None:
    """To requests that have not seen it; one that has seen it gets a new one, by the next turn."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.sees_stored = True
        first = _ask(line, BlockHere(blocks, "a"), caller="x")
        await asyncio.sleep(0)
        blocks.stored["a"] = "stored meanwhile"
        knowing = BlockHere(blocks, "a")
        knowing.known = b"stored meanwhile"
        second = _ask(line, knowing, caller="y")
        found, fetched = await first, await second
        assert isinstance(found, Fetched)
        assert isinstance(fetched, Fetched)
        assert (text_of(found.value), found.joined) == ("stored meanwhile", True)
        assert (text_of(fetched.value), fetched.joined) == ("A", False)


async def test_a_turn_is_begun_within_the_tick_that_gives_it(blocks: Blocks) -> None:
    """With a slot free, one call of the scheduler leads to the fetch, another ends it, and no third is needed."""
    async with lines(blocks) as ([line], [scheduler]):
        await _until(lambda: line.last is not None)
        scheduler.begin_fault = ZeroDivisionError()
        ticks = _counted(scheduler)
        assert isinstance(await _ask(line, BlockHere(blocks, "a")), Fetched)
        await asyncio.sleep(2 * HEARTBEAT_S)
        assert ticks() == 1
        assert line.turn_ends == {("x", "used"): 1}
        assert line.waiting() == ()


async def test_a_tick_that_was_answered_in_vain_is_given_back(blocks: Blocks) -> None:
    """If the answer to a tick is lost that has begun a fetch, its end is told with the next, and the block fetched."""
    async with lines(blocks) as ([line], [scheduler]):
        await _until(lambda: line.last is not None)
        tick, lost = scheduler.tick, 0

        async def losing(waiting: tuple[WaitingCount, ...], **named: object) -> Ticked:
            nonlocal lost
            ticked = await tick(waiting, **named)  # type: ignore[arg-type]
            if ticked.begun is not None and not lost:
                lost += 1
                raise StoreUnavailable("timed out")
            return ticked

        scheduler.tick = losing  # type: ignore[method-assign]
        assert isinstance(await _ask(line, BlockHere(blocks, "a")), Fetched)
        assert (lost, blocks.named()) == (1, ["a"])
        assert line.turn_ends == {("x", "used"): 1}


async def test_a_line_that_closes_during_a_tick_leaves_nobody(blocks: Blocks) -> None:
    """A fetch that the tick has begun is made; a request whose turn it was not is refused, and none is left waiting."""
    for grants in (True, False):
        async with lines(blocks) as ([line], [scheduler]):
            await _until(lambda: line.last is not None)
            scheduler.grants, scheduler.slow_s = grants, 0.05
            asked = _ask(line, BlockHere(blocks, f"a{grants}"))
            await _until(lambda: line._turns._wish is not None)
            await line.aclose()
            assert asked.done()
            outcome = (await asyncio.gather(asked, return_exceptions=True))[0]
            assert isinstance(outcome, Fetched if grants else ShuttingDown)


def _counted(scheduler: Telling) -> Callable[[], int]:
    """Count the ticks from now on."""
    tick, ticks = scheduler.tick, 0

    async def counting(waiting: tuple[WaitingCount, ...], **named: object) -> Ticked:
        nonlocal ticks
        ticks += 1
        return await tick(waiting, **named)  # type: ignore[arg-type]

    scheduler.tick = counting  # type: ignore[method-assign]
    return lambda: ticks


async def test_a_block_stored_between_look_up_and_line_costs_no_turn(blocks: Blocks) -> None:
    """A request that looked for its block just before it was stored, and enters the line after its end was heard, is
    served what was stored, though no turn is due for a minute.
    """
    async with lines(blocks, rules=msgspec.structs.replace(RULES, calls=1, window_ms=60_000)) as ([line], _):
        await _ask(line, BlockHere(blocks, "a"))
        blocks.stored["b"] = "stored elsewhere"
        line.heard("b")
        async with asyncio.timeout(10):
            fetched = await _ask(line, BlockHere(blocks, "b"), patience_s=300.0)
        assert isinstance(fetched, Fetched)
        assert (text_of(fetched.value), fetched.joined) == ("stored elsewhere", True)
    assert blocks.named() == ["a"]


async def test_turns_are_counted_when_they_are_used_and_once(blocks: Blocks) -> None:
    """Turns that are given back are not counted, and one whose answer was lost is not counted twice."""
    async with lines(blocks) as ([_], [scheduler]):
        used: list[str] = []
        line = Line(scheduler, app="shop", rules=RULES, used=used.append)
        line.start()
        scheduler.grants = False
        begin, lost = scheduler.begin, 0

        async def losing(turn: int, *, block: str, block_key: str, known: bytes) -> Beginning:
            nonlocal lost
            beginning = await begin(turn, block=block, block_key=block_key, known=known)
            if isinstance(beginning, Begun) and not lost:
                lost += 1
                raise StoreUnavailable("timed out")
            return beginning

        scheduler.begin = losing  # type: ignore[method-assign]
        assert isinstance(await _ask(line, BlockHere(blocks, "a"), caller="x"), Fetched)
        assert isinstance(await _ask(line, BlockHere(blocks, "b"), caller="y"), Fetched)
        hung_up = _ask(line, BlockHere(blocks, "c"), caller="z")
        await asyncio.sleep(0)
        hung_up.cancel()
        await line.aclose()
        assert (lost, used) == (1, ["x", "y"])


async def test_a_turn_about_to_be_given_back_is_not_used(blocks: Blocks) -> None:
    """A late answer may still list it; if used, it would be freed by its return during its call."""
    async with lines(blocks) as ([line], [scheduler]):
        tick, given = scheduler.tick, Turn(id=7, caller="x", usable_in_ms=0)
        given_back: list[int] = []

        async def listing(waiting: tuple[WaitingCount, ...], *, returned: tuple[int, ...], **named: bool) -> Ticked:
            given_back.extend(returned)
            own = tuple(turn for turn in returned if turn != given.id)
            ticked = await tick(waiting, returned=own, **named)
            is_late = len(given_back) < 2
            return msgspec.structs.replace(ticked, turns=(*ticked.turns, given)) if is_late else ticked

        scheduler.tick = listing  # type: ignore[method-assign]
        await line.look()
        assert isinstance(await _ask(line, BlockHere(blocks, "a")), Fetched)
        assert given_back == [7]
        assert line.turn_ends == {("x", "returned"): 1, ("x", "used"): 1}


async def test_whose_patience_ends_during_a_call_that_fails_gets_its_error(blocks: Blocks) -> None:
    """It has had a turn, so no wait is reported; a request with more patience gets the next call."""
    blocks.took_s = 0.3
    async with lines(blocks) as ([line], _):
        job = BlockHere(blocks, "a", _failing(1))
        patient, impatient = _ask(line, job, caller="x", patience_s=5.0), _ask(line, job, caller="y", patience_s=0.1)
        with pytest.raises(UpstreamTimeout):
            await impatient
        assert isinstance(await patient, Fetched)
    assert blocks.named() == ["a", "a"]
