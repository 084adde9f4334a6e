"""The mutation run itself: what it changes, what it skips, and how it evaluates the results."""

from pathlib import Path

import pytest

from tests.mutants.equivalents import listed_equivalents
from tests.mutants.lua_mutants import lua_mutants
from tests.mutants.mutant import Mutant
from tests.mutants.python_mutants import python_mutants
from tests.mutants.rooms import ROOMS, room_of
from tests.mutants.run import ROOT, Verdict, mutants_of, sampled, summary

SOURCE = b'''"""Says what it is."""

WAIT_S = 0.5


class Wait:
    """Waits."""

    name = "a name"

    def ends(self, now_s: float, *, patience_s: float = 3.0) -> bool:
        """Return whether it is over."""
        if now_s < self.until_s and not self.is_closed:
            log.info("wait.goes_on", now_s=now_s + 1)
            return False
        self.end(patience_s)
        return True
'''
LUA = b"""local A, B = 1, 2 -- 3 <= 4
local function f(x)
  if x <= 5 and x ~= 'a < b' then
    x[A] = 1
  end
end
"""


def _changes(mutants: list[Mutant], source: bytes) -> set[tuple[str, str]]:
    return {mutant.lines(source) for mutant in mutants}


def test_python_is_mutated_only_where_it_has_an_effect() -> None:
    """Conditions, bounds, calls, results, quantities and constants are changed; docstrings, logs, types and texts are
    not."""
    changes = _changes(list(python_mutants("a.py", SOURCE)), SOURCE)
    condition = "if now_s < self.until_s and not self.is_closed:"
    assert changes == {
        ("WAIT_S = 0.5", "WAIT_S = 50.0"),
        (
            "def ends(self, now_s: float, *, patience_s: float = 3.0) -> bool:",
            "def ends(self, now_s: float, *, patience_s: float = 300.0) -> bool:",
        ),
        (condition, "if not (now_s < self.until_s and not self.is_closed):"),
        (condition, "if now_s <= self.until_s and not self.is_closed:"),
        (condition, "if now_s < self.until_s or not self.is_closed:"),
        (condition, "if now_s < self.until_s and (self.is_closed):"),
        ("return False", "return None"),
        ("return False", "return True"),
        ("self.end(patience_s)", "pass"),
        ("self.end(patience_s)", "self.end((patience_s * 2))"),
        ("return True", "return None"),
        ("return True", "return False"),
    }


def test_lua_is_mutated_outside_comments_and_strings() -> None:
    """Operators, numbers and statements are changed; field numbers are not."""
    condition = "if x <= 5 and x ~= 'a < b' then"
    assert _changes(list(lua_mutants("a.lua", LUA)), LUA) == {
        (condition, "if x < 5 and x ~= 'a < b' then"),
        (condition, "if x <= 5 or x ~= 'a < b' then"),
        (condition, "if x <= 5 and x == 'a < b' then"),
        (condition, "if x <= 6 and x ~= 'a < b' then"),
        ("x[A] = 1", "x[A] = 2"),
        ("x[A] = 1", "do end"),
    }


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_has_mutants_and_tests(room: object) -> None:
    """A moved file or a renamed test fails this test, rather than a mutation run that finds nothing."""
    [found] = [each for each in ROOMS if each is room]
    assert len(list(mutants_of(found))) > 10
    for test in found.tests:
        assert (ROOT / test.partition("::")[0]).exists(), test


def test_a_file_belongs_to_the_first_matching_room() -> None:
    """The script is not the model's, although both are in one folder."""
    for path, name in (("script/give.lua", "script"), ("policy/give.py", "model"), ("runs.py", "runs")):
        room = room_of(f"service/budget/scheduler/{path}")
        assert room is not None
        assert room.name == name
    assert room_of("service/settings.py") is None


def test_the_same_seed_draws_the_same_mutants() -> None:
    """The same seed draws the same mutants, another seed others."""
    room = ROOMS[0]
    assert sampled(room, seed=1, count=9) == sampled(room, seed=1, count=9)
    assert sampled(room, seed=1, count=9) != sampled(room, seed=2, count=9)


def test_every_equivalent_is_still_a_mutant_of_the_code() -> None:
    """Every entry matches a mutant: an entry whose line has changed is obsolete."""
    for each in listed_equivalents():
        room = room_of(each.path)
        assert room is not None, each
        source = (ROOT / each.path).read_bytes()
        assert any(each.is_of(mutant, source) for mutant in mutants_of(room) if mutant.path == each.path), each
        assert each.reason


def test_nine_of_ten_must_be_killed() -> None:
    """Equivalents count neither as killed nor as survived, and a run that has tried none fails."""
    mutant = Mutant(path="a.py", kind="constant", start=0, stop=1, text="1")

    def verdicts(**counts: int) -> list[Verdict]:
        return [
            Verdict(mutant=mutant, room="line", word=word.replace("_", " "))
            for word, count in counts.items()
            for _ in range(count)
        ]

    assert summary(verdicts(killed=9, survived=1, equivalent=5))[1]
    assert not summary(verdicts(killed=8, survived=1))[1]
    assert not summary(verdicts(not_tried=3))[1]
    assert "killed 9 of 10 (90%)" in summary(verdicts(killed=9, survived=1))[0]


def test_a_change_is_shown_as_a_diff(tmp_path: Path) -> None:
    """With its file and kind; the line counts from 1."""
    del tmp_path
    mutant = next(each for each in python_mutants("a.py", SOURCE) if each.kind == "comparison")
    assert mutant.line(SOURCE) == 13
    assert "-        if now_s < self.until_s and not self.is_closed:" in mutant.diff(SOURCE)
