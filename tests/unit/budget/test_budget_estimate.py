"""The estimate of a wait, compared with the policy's actual behaviour."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.budget.line.line import estimate_wait_ms
from service.budget.scheduler.interfaces import Begun, Board, Rank, TickRequest, WaitingCount
from service.budget.scheduler.policy.state import Reading
from service.budget.scheduler.policy.steps import Policy
from service.budget.scheduler.rules import Rules

RULES = Rules(calls=5, window_ms=1000, transit_ms=300, report_lease_ms=10_000)
HELD_MS = 50


class Alone:
    """One replica with an exact clock, and fetches of constant duration."""

    def __init__(self) -> None:
        self.policy = Policy(RULES)
        self.now = 0
        self.waiting: dict[str, int] = {}
        self.weights: dict[str, float] = {}
        self.running: list[tuple[int, int, str]] = []
        self.read()

    def read(self) -> Reading:
        return Reading(
            raw_ms=self.now, run_id="a", epoch=self.policy.epoch, seen_ms=self.now, ahead_ms=RULES.ahead_ms, chance=1
        )

    def step(self, *, board: bool = False) -> tuple[list[str], Board | None, int | None]:
        """Advance a few milliseconds; return the callers whose blocks begin."""
        self.now += 3
        for turn, sent, block in [each for each in self.running if each[1] + HELD_MS <= self.now]:
            self.policy.done(self.read(), "r", turn, block=block, pause_ms=0, pause_reason="")
            self.running.remove((turn, sent, block))
        rows = tuple(
            WaitingCount(caller=caller, weight=self.weights[caller], count=count, waited_ms=0)
            for caller, count in self.waiting.items()
        )
        ticked = self.policy.tick(self.read(), "r", TickRequest(waiting=rows, wants_board=board))
        begun = []
        for turn in ticked.turns:
            answer = self.policy.begin(self.read(), "r", turn.id, block=str(turn.id), known=b"", stored=b"")
            if isinstance(answer, Begun):
                begun.append(turn.caller)
                self.waiting[turn.caller] -= 1
                self.running.append((turn.id, self.now, str(turn.id)))
        return begun, ticked.board, ticked.due_in_ms


@settings(max_examples=25, deadline=None, print_blob=True)
@given(
    others=st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.5, 1.0, 2.0, 3.0])), max_size=8),
    weight=st.sampled_from([0.5, 1.0, 4.0]),
    count=st.integers(1, 12),
    before=st.integers(0, 4_000),
)
def test_the_estimate_is_right_within_a_cycle_or_a_fifth(
    others: list[tuple[int, float]], weight: float, count: int, before: int
) -> None:
    """The last block of a newcomer begins when the board predicted."""
    scene = Alone()
    scene.waiting["old"], scene.weights["old"] = 60, 1.0
    while scene.now < 4_000 + before:
        scene.step()
    for number, (many, heavy) in enumerate(others):
        scene.waiting[f"c{number}"], scene.weights[f"c{number}"] = many, heavy
    scene.waiting["me"], scene.weights["me"] = count, weight
    _, board, due = scene.step(board=True)
    assert board is not None
    left = scene.waiting["me"]
    if not left:
        return
    expected = estimate_wait_ms(board, caller="me", weight=weight, place=left, rules=RULES, due_in_ms=due)
    asked = scene.now
    while scene.waiting["me"]:
        scene.step()
        assert scene.now < asked + 600_000
    cycle = RULES.rest_ms + HELD_MS
    assert math.isclose(scene.now - asked, expected, abs_tol=max(cycle, 0.2 * expected))


def test_a_caller_that_is_not_on_the_board_starts_at_the_virtual_time() -> None:
    """An unreported caller waits for no one if no one waits."""
    empty = Board(virtual=7.0, held_ms=0, ranks=())
    assert estimate_wait_ms(empty, caller="me", weight=1, place=1, rules=RULES, due_in_ms=None) == 0
    assert estimate_wait_ms(empty, caller="me", weight=1, place=11, rules=RULES, due_in_ms=40) == pytest.approx(2042)


def test_background_callers_come_last_in_the_estimate() -> None:
    """The background waits for all others, and no other for the background, whatever the tags."""
    ranks = (
        Rank(caller="~unknown", count=7, tag=9.0, weight=1.0, waited_ms=0),
        Rank(caller="b", count=50, tag=0.0, weight=1.0, waited_ms=0, background=True),
    )
    board = Board(virtual=9.0, held_ms=0, ranks=ranks)
    waits = [
        estimate_wait_ms(board, caller=caller, weight=1, place=1, rules=RULES, due_in_ms=0, background=background)
        for caller, background in (("~unknown", False), ("b", True), ("new", False))
    ]
    assert waits == [0, 7 * RULES.rest_ms // RULES.calls, 1 * RULES.rest_ms // RULES.calls]
