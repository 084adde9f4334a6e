"""A line's reactions to each answer of its scheduler and to messages, in virtual time, to the millisecond."""

import asyncio

import pytest

from service.budget.line.jobs import Fetched, TooLong
from service.budget.line.line import Line
from service.budget.line.turns import LOOK_S
from service.budget.scheduler.interfaces import AlreadyStored, Beginning, Begun, Joined, Lapsed, Paused, TickRequest
from service.model.blocks import CachedBlock
from service.model.errors import StoreUnavailable, UpstreamUnreachable
from tests.queued_jobs import cached, text_of
from tests.simulation.scripted_line import RULES, WAY_S, Block, Scripted, ask, in_a_line, now_s


@pytest.mark.parametrize("answer", [Lapsed(), Paused()], ids=["lapsed", "paused"])
def test_an_unused_turn_is_followed_by_another(answer: Beginning) -> None:
    """The request keeps its place and is served by the next turn, at once."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.answers = [answer]
        asked_s = now_s()
        assert isinstance(await ask(line, Block()), Fetched)
        assert now_s() - asked_s < 0.1
        assert len(scheduler.begins) == 2

    in_a_line(scene)


def test_a_stored_block_is_read_and_served() -> None:
    """A block that another replica has stored meanwhile is served without a call."""

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
def test_an_unusable_block_is_named_to_the_next_begin(error: Exception | None) -> None:
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


def test_a_joined_block_is_looked_up_every_second() -> None:
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


def test_a_joined_fetch_that_never_ends_is_repeated_after_its_lease() -> None:
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
def test_a_message_leads_to_a_lookup_at_once(patience_s: float) -> None:
    """A joined block is served a few milliseconds after its message, even to those whose patience has ended; then it is
    not looked up again."""

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
        await asyncio.sleep(2 * LOOK_S)
        assert len(block.looks) == 1

    in_a_line(scene)


def test_a_message_without_a_new_block_returns_the_request_to_the_line() -> None:
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


def test_after_a_gap_in_messages_joined_blocks_are_looked_up() -> None:
    """After a gap, joined blocks are looked up at once; blocks that wait for a turn are not."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        joined, waiting = Block("joined"), Block("waiting")
        scheduler.answers = [Joined(lease_in_ms=8_000)]
        asking = ask(line, joined)
        await asyncio.sleep(0.5)
        await scheduler.tick(TickRequest(quiet=True))
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


def test_a_lapsed_turn_that_is_listed_again_is_not_begun_again() -> None:
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


def test_an_early_turn_is_begun_when_it_is_usable() -> None:
    """Its call is made once the turn is usable, and not earlier; the turn counts as used once."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.keeps_turns = True
        scheduler.answers = [Begun(usable_in_ms=150)]
        asked_s = now_s()
        block = Block()
        assert isinstance(await ask(line, block), Fetched)
        assert 0.15 < block.calls[0] - asked_s < 0.165
        assert line.turn_ends == {("x", "used"): 1}

    in_a_line(scene)


def test_a_turn_that_is_begun_early_is_returned_if_its_caller_has_left() -> None:
    """No call is made with it, and its slot serves the next request as soon as it would have served this one."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.keeps_turns = True
        scheduler.answers = [Begun(usable_in_ms=150)]
        block = Block()
        asking = ask(line, block)
        await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.sleep(0.2)
        assert not block.calls
        assert line.turn_ends == {("x", "returned"): 1}
        asked_s = now_s()
        assert isinstance(await ask(line, Block("next")), Fetched)
        assert now_s() - asked_s < 0.1

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


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (Joined(lease_in_ms=100), "joined"),
        (AlreadyStored(head=b"stored"), "known"),
        (Paused(), "paused"),
        (Lapsed(), "lapsed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_turn_is_counted_by_its_end(answer: Beginning, word: str) -> None:
    """Each turn is counted once, for its caller, by how it ended."""

    async def scene(line: Line, scheduler: Scripted) -> None:
        scheduler.answers = [answer]
        assert isinstance(await ask(line, Block()), Fetched)
        assert line.turn_ends == {("x", word): 1, ("x", "used"): 1}

    in_a_line(scene)
