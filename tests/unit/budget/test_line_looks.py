"""Blocks that a line finds stored: when it looks for them, and which it accepts."""

import asyncio

import msgspec
import pytest

from service.budget.line.jobs import Fetched
from service.model.blocks import CachedBlock
from service.model.errors import StoreUnavailable
from tests.queued_jobs import text_of
from tests.servers import until
from tests.unit.budget.lines import RULES, BlockHere, Blocks, ask, lines, ticks_of


async def test_a_look_returns_the_board(blocks: Blocks) -> None:
    """The board has all waiting callers of all replicas; if the scheduler is unavailable, there is none."""
    async with lines(blocks, 2) as ([one, other], schedulers):
        asked = [ask(one, BlockHere(blocks, f"b{n}")) for n in range(8)]
        await until(lambda: bool(blocks.calls))
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
            while await other.look() is not None:  # the last board may be shown for a quarter of a second
                await asyncio.sleep(0.01)


async def test_a_hundred_looks_cost_one_tick(blocks: Blocks) -> None:
    """A hundred looks cost one tick, and so do those of the next quarter of a second."""
    async with lines(blocks) as ([line], [scheduler]):
        ticks = ticks_of(scheduler)
        await asyncio.gather(*(line.look() for _ in range(100)))
        for _ in range(10):
            await line.look()
        assert ticks() == 1


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
async def test_an_unusable_stored_value_is_read_once_and_replaced(blocks: Blocks, fails: bool) -> None:
    """A value that is unreadable or unavailable costs one look and one more turn; then the block is fetched."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.sees_stored = True
        blocks.stored["a"] = "of another format"[:16]
        job = Unreadable(blocks, "a", fails=fails)
        fetched = await ask(line, job, patience_s=2.0)
        assert isinstance(fetched, Fetched)
        assert not fetched.joined
        assert job.looks == 1
        assert line.turn_ends == {("x", "known"): 1, ("x", "used"): 1}


async def test_a_block_stored_by_another_replica_is_served(blocks: Blocks) -> None:
    """Requests that have not seen the stored block are served it; one that has seen it gets a new one, by the next
    turn."""
    async with lines(blocks) as ([line], [scheduler]):
        scheduler.sees_stored = True
        first = ask(line, BlockHere(blocks, "a"), caller="x")
        await asyncio.sleep(0)
        blocks.stored["a"] = "stored meanwhile"
        knowing = BlockHere(blocks, "a")
        knowing.known = b"stored meanwhile"
        second = ask(line, knowing, caller="y")
        found, fetched = await first, await second
        assert isinstance(found, Fetched)
        assert isinstance(fetched, Fetched)
        assert (text_of(found.value), found.joined) == ("stored meanwhile", True)
        assert (text_of(fetched.value), fetched.joined) == ("A", False)


async def test_a_block_stored_between_lookup_and_line_costs_no_turn(blocks: Blocks) -> None:
    """A request that looked for its block just before it was stored, and enters the line after the message of its
    end, is served the stored block, though no turn is due for a minute.
    """
    async with lines(blocks, rules=msgspec.structs.replace(RULES, calls=1, window_ms=60_000)) as ([line], _):
        await ask(line, BlockHere(blocks, "a"))
        blocks.stored["b"] = "stored elsewhere"
        line.heard("b")
        async with asyncio.timeout(10):
            fetched = await ask(line, BlockHere(blocks, "b"), patience_s=300.0)
        assert isinstance(fetched, Fetched)
        assert (text_of(fetched.value), fetched.joined) == ("stored elsewhere", True)
    assert blocks.named() == ["a"]
