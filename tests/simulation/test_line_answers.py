"""What a line makes of each answer of its scheduler, of messages and of losses: in virtual time, to the millisecond."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from service.budget.line.jobs import CallFailed, Fetched, HeldSlot, LineIsFull, TooLong
from service.budget.line.line import HEARTBEAT_S, LOOKER_S, SPACING_S, Line
from service.budget.line.turns import DONE_AGAIN_S, LOOK_S
from service.budget.scheduler.interfaces import (
    AlreadyStored,
    Beginning,
    Begun,
    Joined,
    Lapsed,
    Paused,
    Rules,
    Ticked,
    WaitingCount,
    Wish,
)
from service.budget.scheduler.local import LocalScheduler
from service.budget.scheduler.policy import Policy
from service.model.blocks import NOTHING, CachedBlock
from service.model.errors import ShuttingDown, StoreUnavailable, UpstreamTimeout, UpstreamUnreachable
from tests.queued_jobs import JobOfNothing, cached, text_of
from tests.simulation.virtual_time import run_in_virtual_time

RULES = Rules(calls=2, window_ms=1000, transit_ms=200, fetch_lease_ms=3_000)
WAY_S = 0.001


class Block(JobOfNothing):
    """A block of an upstream that takes `took_s`; `stored` is what Redis has, `looks` when that was looked at."""

    def __init__(self, name: str = "b", *, took_s: float = 0.05, connect_s: float = 0.0) -> None:
        super().__init__(name)
        self.took_s = took_s
        self.connect_s = connect_s
        self.stored: CachedBlock = NOTHING
        self.error: Exception | None = None
        self.looks: list[float] = []
        self.calls: list[float] = []
        self.failures: list[CallFailed] = []
        self.kept = 0

    async def call(self, slot: HeldSlot, *, attempt: int) -> CachedBlock | CallFailed:
        """Make the call, or fail as configured."""
        del attempt
        await asyncio.sleep(self.connect_s)
        try:
            await slot.hold()
        except UpstreamUnreachable as exc:
            return CallFailed(error=exc)
        self.calls.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.took_s)
        return self.failures.pop(0) if self.failures else cached(f"call {len(self.calls)}")

    async def keep(self) -> None:
        """Count."""
        self.kept += 1

    async def look(self) -> CachedBlock:
        """Look at what is stored."""
        self.looks.append(asyncio.get_running_loop().time())
        await asyncio.sleep(WAY_S)
        if self.error is not None:
            raise self.error
        return self.stored


class Scripted(LocalScheduler):
    """A scheduler a millisecond away. The next answers to `begin` may be set, and each step may fail or hang."""

    def __init__(self) -> None:
        super().__init__(Policy(RULES), lambda: asyncio.get_running_loop().time() * 1000)
        self.answers: list[Beginning] = []
        self.keeps_turns = False
        self.ticks: list[float] = []
        self.begins: list[int] = []
        self.knowns: list[bytes] = []
        self.dones: list[float] = []
        self.lost_begins = 0
        self.lost_dones = 0
        self.hangs = asyncio.Event()
        self.hangs.set()

    async def tick(
        self,
        waiting: tuple[WaitingCount, ...],
        *,
        returned: tuple[int, ...],
        quiet: bool,
        wants_board: bool,
        wish: Wish | None = None,
    ) -> Ticked:
        """Tick, and record when; wishes are not granted, as by a replica that shares."""
        del wish
        self.ticks.append(asyncio.get_running_loop().time())
        await asyncio.sleep(WAY_S)
        await self.hangs.wait()
        return await super().tick(waiting, returned=returned, quiet=quiet, wants_board=wants_board)

    async def begin(self, turn: int, *, block: str, block_key: str, known: bytes) -> Beginning:
        """Return the next answer that was set, and give the turn back; otherwise begin."""
        self.begins.append(turn)
        self.knowns.append(known)
        await asyncio.sleep(WAY_S)
        if self.answers:
            answer = self.answers.pop(0)
            if not self.keeps_turns:
                await super().done(turn, block=block, pause_ms=0, pause_reason="")
            return answer
        answer = await super().begin(turn, block=block, block_key=block_key, known=known)
        if self.lost_begins:
            self.lost_begins -= 1
            raise StoreUnavailable("timed out")
        return answer

    async def done(
        self, turn: int, *, block: str, pause_ms: int, pause_reason: str, took_ms: int | None = None
    ) -> None:
        """End a fetch, unless that is lost."""
        self.dones.append(asyncio.get_running_loop().time())
        await asyncio.sleep(WAY_S)
        if self.lost_dones:
            self.lost_dones -= 1
            raise StoreUnavailable("timed out")
        await super().done(turn, block=block, pause_ms=pause_ms, pause_reason=pause_reason, took_ms=took_ms)


Scene = Callable[[Line, Scripted], Awaitable[None]]


def in_a_line(scene: Scene, *, grace_s: float = 60.0) -> None:
    """Run a scene with a line whose first quiet window is over."""

    async def run() -> None:
        scheduler = Scripted()
        line = Line(scheduler, app="shop", rules=RULES, redis_grace_s=grace_s)
        line.start()
        await asyncio.sleep(3)
        scheduler.ticks.clear()
        await scene(line, scheduler)
        scheduler.answers.clear()
        await asyncio.wait_for(line.aclose(), 60)

    with capture_logs():
        run_in_virtual_time(run)


def ask(
    line: Line, job: Block, *, patience_s: float = 10.0, caller: str = "x", bound: int = 1_000
) -> "asyncio.Task[Fetched | TooLong | LineIsFull]":
    """Ask for a block."""
    return asyncio.create_task(line.fetch(job, caller=caller, weight=1.0, patience_s=patience_s, bound=bound))


def now_s() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize("answer", [Lapsed(), Paused(pause_in_ms=5, reason="throttled")], ids=["lapsed", "paused"])
def test_a_turn_that_leads_to_nothing_is_followed_by_another(answer: Beginning) -> None:
    """The request keeps its place and is served by the next turn, at once."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.answers = [answer]
        asked_s = now_s()
        assert isinstance(await ask(line, Block()), Fetched)
        assert now_s() - asked_s < 0.1
        assert len(scheduler.begins) == 2

    in_a_line(scene)


def test_what_is_stored_is_looked_at_and_served() -> None:
    """Without a call: another replica has fetched it meanwhile."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        block.stored = cached("stored elsewhere")
        scheduler.answers = [AlreadyStored(head=b"stored elsewhere")]
        got = await ask(line, block)
        assert isinstance(got, Fetched)
        assert (text_of(got.value), got.joined) == ("stored elsewhere", True)
        assert (len(block.looks), block.calls) == (1, [])

    in_a_line(scene)


@pytest.mark.parametrize("error", [None, StoreUnavailable("timed out")], ids=["nothing there", "cannot be read"])
def test_what_cannot_be_served_is_known_to_the_next_turn(error: Exception | None) -> None:
    """The next `begin` names what was found, or what the scheduler has named, and so it leads to a call."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        block.error = error
        block.stored = CachedBlock(stored=None, head=b"garbage")
        scheduler.answers = [AlreadyStored(head=b"named by it")]
        got = await ask(line, block)
        assert isinstance(got, Fetched)
        assert not got.joined
        assert scheduler.knowns == [b"", b"garbage" if error is None else b"named by it"]
        assert len(block.looks) == 1

    in_a_line(scene)


def test_a_joined_fetch_is_looked_at_once_a_second() -> None:
    """If its message is lost, the block is found by the next look, without a call."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        scheduler.answers = [Joined(lease_in_ms=8_000)]
        asked_s = now_s()
        asking = ask(line, block)
        await asyncio.sleep(2.5)
        block.stored = cached("fetched elsewhere")
        got = await asking
        assert isinstance(got, Fetched)
        assert got.joined
        assert now_s() - asked_s == pytest.approx(3 * LOOK_S, abs=0.05)
        assert len(block.looks) == 3
        assert not block.calls

    in_a_line(scene)


def test_a_joined_fetch_that_never_ends_is_made_here_when_its_lease_is_over() -> None:
    """The request waits in line again then, and no earlier."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        scheduler.answers = [Joined(lease_in_ms=2_500)]
        asked_s = now_s()
        got = await ask(line, block)
        assert isinstance(got, Fetched)
        assert not got.joined
        assert block.calls[0] - asked_s == pytest.approx(2.5, abs=0.05)

    in_a_line(scene)


@pytest.mark.parametrize("patience_s", [0.5, 10.0])
def test_a_message_is_looked_into_at_once(patience_s: float) -> None:
    """A joined block is served a few milliseconds after its message, even to those whose patience has ended."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        scheduler.answers = [Joined(lease_in_ms=8_000)]
        asking = ask(line, block, patience_s=patience_s)
        await asyncio.sleep(0.7)
        block.stored = cached("fetched elsewhere")
        heard_s = now_s()
        line.heard("another block")
        line.heard("b")
        assert isinstance(await asking, Fetched)
        assert now_s() - heard_s < 0.01
        assert not line.wants("b")

    in_a_line(scene)


def test_a_message_that_says_nothing_new_puts_the_request_back_in_line() -> None:
    """The fetch elsewhere has failed: this replica makes its own at the next turn."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        scheduler.answers = [Joined(lease_in_ms=8_000)]
        asking = ask(line, block)
        await asyncio.sleep(0.5)
        heard_s = now_s()
        line.heard("b")
        assert isinstance(await asking, Fetched)
        assert block.calls[0] - heard_s < 0.1

    in_a_line(scene)


def test_a_message_that_overtakes_the_answer_to_begin_is_not_lost() -> None:
    """A fetch that ended while `begin` was on its way is looked for as soon as that says `Joined`."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        block.stored = cached("fetched elsewhere")
        scheduler.answers = [Joined(lease_in_ms=8_000)]
        asked_s = now_s()
        asking = ask(line, block)
        while not scheduler.begins:
            await asyncio.sleep(WAY_S / 4)
        line.heard("b")
        assert isinstance(await asking, Fetched)
        assert now_s() - asked_s < 0.05

    in_a_line(scene)


def test_after_a_gap_in_messages_what_is_fetched_elsewhere_is_looked_for() -> None:
    """At once, and nothing else is: blocks that wait for a turn are not."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        joined, waiting = Block("joined"), Block("waiting")
        scheduler.answers = [Joined(lease_in_ms=8_000)]
        asking = ask(line, joined)
        await asyncio.sleep(0.5)
        await scheduler.tick((), returned=(), quiet=True, wants_board=False)
        behind = ask(line, waiting)
        await asyncio.sleep(0.1)
        joined.stored = cached("fetched elsewhere")
        gap_s = now_s()
        line.on_message_gap()
        assert isinstance(await asking, Fetched)
        assert now_s() - gap_s < 0.01
        assert not waiting.looks
        assert isinstance(await behind, Fetched)

    in_a_line(scene)


def test_many_who_come_one_after_the_other_cost_a_tick_every_few_milliseconds() -> None:
    """However many requests arrive, ticks keep their distance."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        asked = []
        for number in range(200):
            asked.append(ask(line, Block(f"b{number}"), caller=f"c{number}"))
            await asyncio.sleep(0.0005)
        apart = [later - earlier for earlier, later in zip(scheduler.ticks, scheduler.ticks[1:], strict=False)]
        assert min(apart) >= SPACING_S
        assert len(scheduler.ticks) <= 0.1 / SPACING_S + 2
        for task in asked:
            task.cancel()

    in_a_line(scene)


def test_a_waiting_replica_ticks_four_times_a_second_if_nothing_is_due() -> None:
    """Its report stays valid, and is not renewed needlessly."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await scheduler.done(0, block="", pause_ms=20_000, pause_reason="throttled")
        asking = ask(line, Block(), patience_s=60)
        await asyncio.sleep(0.5)
        scheduler.ticks.clear()
        await asyncio.sleep(10)
        assert 10 / HEARTBEAT_S - 2 <= len(scheduler.ticks) <= 10 / HEARTBEAT_S + 2
        asking.cancel()

    in_a_line(scene)


def test_a_scheduler_that_lists_a_lapsed_turn_again_is_not_asked_for_it_again() -> None:
    """Nothing is tried again unless something has changed: the turn's lease passes, and another one comes."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.keeps_turns = True
        scheduler.answers = [Lapsed()] * 1_000
        assert isinstance(await ask(line, Block(), patience_s=6), TooLong)
        assert 2 <= len(scheduler.begins) <= 6 / 0.3 * RULES.calls + 2
        assert len(set(scheduler.begins)) == len(scheduler.begins)
        assert len(scheduler.ticks) <= 6 / 0.3 * 20
        scheduler.answers.clear()
        scheduler.keeps_turns = False
        assert isinstance(await ask(line, Block(), patience_s=6), Fetched)

    in_a_line(scene)


def test_a_lost_answer_to_begin_is_asked_for_once_more() -> None:
    """The same turn begins again, and the call is made with it: no slot is lost."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.lost_begins = 1
        assert isinstance(await ask(line, Block()), Fetched)
        assert len(scheduler.begins) == 2
        assert len(set(scheduler.begins)) == 1
        assert line.turn_ends == {("x", "used"): 1}

    in_a_line(scene)


def test_a_begin_whose_answers_are_lost_is_ended() -> None:
    """The end of a fetch that may have begun is told, so that its block is not held; the request waits again."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.lost_begins = 2
        asked_s = now_s()
        assert isinstance(await ask(line, Block()), Fetched)
        assert now_s() - asked_s < 0.2
        assert line.turn_ends == {("x", "lost"): 1, ("x", "used"): 1}
        assert len(scheduler.dones) == 2

    in_a_line(scene)


def test_the_end_of_a_fetch_is_told_again_and_again_with_growing_pauses() -> None:
    """The request has its block at once; its turn is not used a second time meanwhile; after five tries that is all."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.lost_dones = 100
        asked_s = now_s()
        assert isinstance(await ask(line, Block()), Fetched)
        assert now_s() - asked_s < 0.1
        await asyncio.sleep(10)
        apart = [later - earlier for earlier, later in zip(scheduler.dones, scheduler.dones[1:], strict=False)]
        assert apart == pytest.approx([DONE_AGAIN_S * 2**n + WAY_S for n in range(4)], abs=0.01)
        scheduler.lost_dones = 1
        scheduler.dones.clear()
        assert isinstance(await ask(line, Block("c")), Fetched)
        await asyncio.sleep(5)
        assert len(scheduler.dones) == 2

    in_a_line(scene)


def test_a_failed_call_is_made_again_for_those_who_can_still_wait() -> None:
    """Those whose patience has ended get its error, at once; nobody waits longer than the patience and a call."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block(took_s=2.0)
        block.failures = [CallFailed(error=UpstreamTimeout("no answer", app="shop"), again=True)]
        asked_s = now_s()
        patient, impatient = ask(line, block, caller="p"), ask(line, block, caller="i", patience_s=1.0)
        with pytest.raises(UpstreamTimeout):
            await impatient
        assert now_s() - asked_s == pytest.approx(2.0, abs=0.05)
        assert isinstance(await patient, Fetched)
        assert len(block.calls) == 2
        assert block.kept == 1
        assert len(scheduler.dones) == 2

    in_a_line(scene)


def test_a_call_that_stored_a_part_lets_the_next_one_know_it() -> None:
    """The part's head goes with the next `begin`, or that would only find the part."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        block = Block()
        error = UpstreamTimeout("a part only", app="shop")
        block.failures = [CallFailed(error=error, head=b"part", again=True)]
        assert isinstance(await ask(line, block), Fetched)
        assert scheduler.knowns == [b"", b"part"]

    in_a_line(scene)


def test_a_stop_fails_all_who_wait_and_a_call_under_way_goes_on() -> None:
    """No other call would do better; those that wait for the one that has begun get what it brings."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        error = UpstreamTimeout("wrong key", app="shop")
        stops, goes_on = Block("stops"), Block("goes on", took_s=1.0)
        stops.failures = [CallFailed(error=error, stop=True)]
        going, stopping = ask(line, goes_on), ask(line, stops)
        behind = [ask(line, Block(f"b{number}")) for number in range(5)]
        for task in (stopping, *behind):
            with pytest.raises(UpstreamTimeout):
                await task
        assert isinstance(await going, Fetched)
        del scheduler

    in_a_line(scene)


def test_a_wait_that_ends_gives_up_its_place_and_its_turn() -> None:
    """The next tick tells it; the turn that comes too late is given back and serves another."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        gone = ask(line, Block("gone"))
        while not scheduler.ticks:
            await asyncio.sleep(WAY_S / 4)
        gone.cancel()
        await asyncio.sleep(0.1)
        assert line.waiting() == ()
        assert line.turn_ends == {("x", "returned"): 1}
        assert not scheduler.begins
        assert not line.wants("gone")
        asked_s = now_s()
        got = await asyncio.gather(*(ask(line, Block(f"b{number}")) for number in range(RULES.calls)))
        assert all(isinstance(each, Fetched) for each in got)
        assert now_s() - asked_s < 0.1

    in_a_line(scene)


def test_the_line_of_one_caller_is_in_order() -> None:
    """Its blocks are called for as they were asked for, and one asked for twice keeps its first place."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await scheduler.tick((), returned=(), quiet=True, wants_board=False)
        blocks = [Block(f"b{number}") for number in range(5)]
        asked = [ask(line, block) for block in blocks]
        await asyncio.sleep(0)
        again = ask(line, blocks[0])
        await asyncio.gather(*asked, again)
        times = [block.calls[0] for block in blocks]
        assert times == sorted(times)
        assert [len(block.calls) for block in blocks] == [1] * 5

    in_a_line(scene)


def test_a_new_request_is_judged_by_a_new_board_and_at_once() -> None:
    """Within a heartbeat of the last board no tick is needed to refuse what comes too late."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        backlog = [ask(line, Block(f"b{number}"), patience_s=60) for number in range(30)]
        await asyncio.sleep(0.02)
        ticks = len(scheduler.ticks)
        refused = await ask(line, Block("late"), patience_s=2.0)
        assert isinstance(refused, TooLong)
        assert refused.place >= 28
        assert refused.estimate_s > 2.0
        assert len(scheduler.ticks) <= ticks + 1
        full = await ask(line, Block("more"), patience_s=60, bound=5)
        assert full == LineIsFull(bound=5, estimate_s=full.estimate_s if isinstance(full, LineIsFull) else -1)
        assert isinstance(await ask(line, Block("b0"), patience_s=60, bound=5), Fetched)
        for task in backlog:
            task.cancel()

    in_a_line(scene)


def test_a_pause_that_begins_refuses_those_who_can_not_wait_for_its_end() -> None:
    """They learn it with the next tick, not at the end of their patience; others wait it out."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        await asyncio.gather(*(ask(line, Block(f"a{number}")) for number in range(RULES.calls)))
        short, long = ask(line, Block("short"), patience_s=3), ask(line, Block("long"), patience_s=30)
        await asyncio.sleep(0.1)
        await scheduler.done(0, block="", pause_ms=10_000, pause_reason="throttled")
        paused_s = now_s()
        assert isinstance(await short, TooLong)
        assert now_s() - paused_s < 1.0
        assert isinstance(await long, Fetched)
        assert now_s() - paused_s >= 10.0

    in_a_line(scene)


def test_a_look_at_a_scheduler_that_hangs_ends() -> None:
    """After a second it says that nothing is known; the next one that is answered says what is."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.hangs.clear()
        await asyncio.sleep(1)
        asked_s = now_s()
        assert await line.look() is None
        assert now_s() - asked_s == pytest.approx(LOOKER_S, abs=0.01)
        scheduler.hangs.set()
        await asyncio.sleep(1)
        looked = await line.look()
        assert looked is not None
        assert looked.board is not None

    in_a_line(scene)


def test_a_line_that_closes_ends_what_it_has_begun() -> None:
    """Who waits is refused, a call under way serves, its end is told, and no further turn is used."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        called = Block("called", took_s=1.0)
        called.failures = [CallFailed(error=UpstreamTimeout("no answer", app="shop"), again=True)]
        serving = Block("serving", took_s=1.5)
        asked = [ask(line, called), ask(line, serving)]
        await asyncio.sleep(0.1)
        waiting = [ask(line, Block(f"b{number}")) for number in range(3)]
        await asyncio.sleep(0.1)
        await line.aclose()
        got = await asyncio.gather(*asked, *waiting, return_exceptions=True)
        assert [type(each) for each in got] == [UpstreamTimeout, Fetched] + [ShuttingDown] * 3
        assert len(scheduler.dones) == 2
        with pytest.raises(ShuttingDown):
            await ask(line, Block("new"))
        ended = len(scheduler.ticks)
        await asyncio.sleep(5)
        assert len(scheduler.ticks) == ended

    in_a_line(scene)


def test_a_turn_that_is_begun_early_is_used_when_it_is_usable() -> None:
    """Its call is made then, and not a moment sooner; it counts as used once."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.keeps_turns = True
        scheduler.answers = [Begun(usable_in_ms=150)]
        asked_s = now_s()
        block = Block()
        assert isinstance(await ask(line, block), Fetched)
        assert block.calls[0] - asked_s == pytest.approx(0.155, abs=0.01)
        assert line.turn_ends == {("x", "used"): 1}

    in_a_line(scene)


def test_the_slot_of_a_slow_connection_is_renewed_and_lost_only_if_it_is_gone() -> None:
    """Within half of the transit time no second `begin` is sent; beyond it one is, and it may say that all is lost."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        assert isinstance(await ask(line, Block("quick", connect_s=0.09)), Fetched)
        assert len(scheduler.begins) == 1
        await asyncio.sleep(2)
        assert isinstance(await ask(line, Block("slow", connect_s=0.2)), Fetched)
        assert len(scheduler.begins) == 3
        await asyncio.sleep(2)
        for answers, lost in (([Begun(), Lapsed()], 0), ([], 2)):
            scheduler.answers, scheduler.keeps_turns = list(answers), True
            gone = Block(f"gone {lost}", connect_s=0.3)
            asking = ask(line, gone)
            await asyncio.sleep(0.1)
            scheduler.lost_begins = lost
            with pytest.raises(UpstreamUnreachable):
                await asking
            assert not gone.calls
            await asyncio.sleep(2)

    in_a_line(scene)


def test_an_outage_is_waited_out_for_the_grace_period_and_not_longer() -> None:
    """Then those who wait get the error, at once; a call that has begun goes on."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        calling = ask(line, Block("calling", took_s=5.0))
        await asyncio.sleep(0.1)
        step, down_s = scheduler.tick, now_s()

        async def away(*_: object, **__: object) -> Ticked:
            raise StoreUnavailable("unreachable")

        scheduler.tick = away  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await ask(line, Block("waiting"))
        assert now_s() - down_s == pytest.approx(2.0, abs=0.3)
        assert line.is_cut_off
        assert isinstance(await calling, Fetched)
        scheduler.tick = step  # type: ignore[method-assign]
        await asyncio.sleep(1.5)
        assert not line.is_cut_off, "it is noticed although nobody waits"

    in_a_line(scene, grace_s=2.0)


def test_the_age_of_what_is_known_is_told() -> None:
    """`seen_s` counts from the last answer."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        assert isinstance(await ask(line, Block()), Fetched)
        await asyncio.sleep(5)
        assert line.seen_s() == pytest.approx(now_s() - scheduler.ticks[-1] - WAY_S, abs=0.01)

    in_a_line(scene)
