"""The queue inside one replica: per caller, first come first served."""

import asyncio
from typing import Any

import pytest

from service.budget.line.jobs import Fetched, TooLong
from service.budget.line.queue import BlockState, Queue, QueuedBlock, Waiter
from service.budget.line.waiters import Waiters
from tests.queued_jobs import JobOfNothing, cached


@pytest.fixture
def places() -> Queue:
    """An empty queue."""
    return Queue()


def _enter(places: Queue, block: str, caller: str, now_s: float = 0.0, *, background: bool = False) -> QueuedBlock:
    want = places.blocks.get(block) or QueuedBlock(JobOfNothing(block))
    never: Any = None
    places.enter(
        want,
        Waiter(want.job, never, caller=caller, weight=1.0, entered_s=now_s, patience_s=1.0, background=background),
    )
    return want


def _rows(places: Queue, now_s: float = 10.0) -> dict[str, tuple[int, int]]:
    return {row.caller: (row.count, row.waited_ms) for row in places.report(now_s=now_s)}


def test_a_report_counts_blocks_and_not_requests(places: Queue) -> None:
    """A caller that requests the same block twice waits for one turn, since the first request."""
    _enter(places, "a", "x", now_s=1)
    _enter(places, "a", "x", now_s=2)
    _enter(places, "b", "x", now_s=3)
    _enter(places, "a", "y", now_s=4)
    assert _rows(places) == {"x": (2, 9_000), "y": (1, 6_000)}


def test_a_callers_oldest_block_is_next(places: Queue) -> None:
    """First come, first served, within a caller."""
    first, second = _enter(places, "a", "x"), _enter(places, "b", "x")
    assert places.next_for("x") is first
    first.state = BlockState.CALLING
    assert places.next_for("x") is second
    second.state = BlockState.ELSEWHERE
    assert places.next_for("x") is None


@pytest.mark.parametrize("state", [BlockState.BEGINNING, BlockState.CALLING, BlockState.ELSEWHERE])
def test_a_block_that_is_being_fetched_needs_no_turn(places: Queue, state: BlockState) -> None:
    """A block that is being fetched is no longer reported, for the paying caller or for those that have joined."""
    want = _enter(places, "a", "x")
    _enter(places, "a", "y")
    want.state, want.turned_for = state, "x"
    assert _rows(places) == {}


def test_a_turn_in_hand_still_counts_for_its_caller_alone(places: Queue) -> None:
    """The scheduler deducts given turns from the report; the others must not get a second one."""
    want = _enter(places, "a", "x")
    _enter(places, "a", "y")
    want.state, want.turned_for = BlockState.TURNED, "x"
    assert _rows(places) == {"x": (1, 10_000)}


def test_a_block_goes_back_to_its_old_place(places: Queue) -> None:
    """After a failed fetch it is next again, as old as it was."""
    want = _enter(places, "a", "x", now_s=1)
    _enter(places, "b", "x", now_s=2)
    want.state = BlockState.CALLING
    want.state = BlockState.WAITING
    assert places.next_for("x") is want
    assert _rows(places) == {"x": (2, 9_000)}


def test_a_block_is_removed_with_its_last_request(places: Queue) -> None:
    """When the last request for a block leaves, the block is removed, and nothing is left behind."""
    want = _enter(places, "a", "x")
    _enter(places, "a", "y")
    places.leave(want, "x")
    assert set(places.blocks) == {"a"}
    places.leave(want, "y")
    places.leave(want, "y")
    assert not places.blocks
    assert places.held_by("x") == places.held_by("y") == 0
    assert _rows(places) == {}


def test_a_position_counts_what_still_needs_a_turn(places: Queue) -> None:
    """A block that is being fetched is not ahead of any other."""
    wants = [_enter(places, block, "x") for block in "abc"]
    assert [places.position(want, "x") for want in wants] == [1, 2, 3]
    wants[0].state = BlockState.CALLING
    assert places.position(wants[2], "x") == 2


def test_the_background_is_first_only_if_no_other_request_waits(places: Queue) -> None:
    """Even if it came first; a caller whose blocks are all being fetched does not wait."""
    behind = _enter(places, "behind", "~renewal", background=True)
    assert places.first() == ("~renewal", behind)
    wanted = _enter(places, "a", "x", now_s=1)
    assert places.first() == ("x", wanted)
    wanted.state = BlockState.CALLING
    assert places.first() == ("~renewal", behind)
    behind.state = BlockState.CALLING
    assert places.first() is None


async def test_a_request_right_after_a_block_was_served_is_queued_anew() -> None:
    """Those that are served leave when their tasks run next; one that comes before that does not share their block."""

    def waiter() -> Waiter:
        future: asyncio.Future[Fetched | TooLong] = asyncio.get_running_loop().create_future()
        return Waiter(JobOfNothing("a"), future, caller="x", weight=1.0, entered_s=0.0, patience_s=1.0)

    waiters = Waiters(estimate=lambda *_: 0.0, changed=lambda: None)
    first, second = waiter(), waiter()
    served = waiters.enter(first)
    served.state = BlockState.CALLING
    waiters.serve(served, cached("new"), payer="x")
    queued = waiters.enter(second)
    waiters.leave(served, first)
    assert queued is not served
    assert (waiters.queue.holds(queued), queued.state) == (True, BlockState.WAITING)
    assert not second.future.done()
