"""How long a caller will wait for its turn, told from the board."""

import math

from service.budget.scheduler.interfaces import Board, Rules


def estimate_wait_ms(
    board: Board,
    *,
    caller: str,
    weight: float,
    place: int,
    rules: Rules,
    due_in_ms: int | None,
    background: bool = False,
) -> int:
    """How long the `place`-th block (from 1) of `caller` waits for its turn, in milliseconds.

    Every other caller gets the turns whose tags come before this one's, as long as it has blocks waiting; those in the
    background come last. Turns come at the budget's pace. Right within one cycle or a fifth, whichever is more, while
    nobody comes or leaves.
    """
    tag = next((rank.tag for rank in board.ranks if rank.caller == caller), board.virtual)
    target = tag + (place - 1) / weight
    before = place - 1
    for rank in board.ranks:
        if rank.caller == caller or (rank.background and not background):
            continue
        if background and not rank.background:
            before += rank.count
        elif rank.tag <= target:
            before += min(rank.count, math.floor((target - rank.tag) * rank.weight) + 1)
    cycle_ms = rules.rest_ms + board.held_ms
    return (due_in_ms or 0) + before * cycle_ms // rules.calls
