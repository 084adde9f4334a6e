"""Try a sample of small changes to the code, each against the tests that cover it: `make mutants`.

A change that no test detects is printed as a diff: write a test that states the right behaviour or, if the change is
not observable, list it in equivalent.toml with the reason. Works on copies; the tree is not modified.
"""

import argparse
import math
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import msgspec

from tests.mutants.equivalents import listed_equivalents
from tests.mutants.lua_mutants import lua_mutants
from tests.mutants.mutant import Mutant
from tests.mutants.python_mutants import python_mutants
from tests.mutants.rooms import ROOMS, Room, room_of
from tests.mutants.trial import Trial

ROOT = Path(__file__).resolve().parents[2]
WANTED = 0.9
BASE_TIMEOUT_S = 1_200.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a mutant: `word` is killed, survived, equivalent or not tried; `by` is the test that failed."""

    mutant: Mutant
    room: str
    word: str
    by: str = ""
    took_s: float = 0.0


def mutants_of(room: Room, root: Path = ROOT) -> Iterator[Mutant]:
    """Return all mutants of a room's files, in order."""
    for file in sorted((root / "service").rglob("*")):
        path = file.relative_to(root).as_posix()
        if file.suffix in {".py", ".lua"} and room_of(path) is room:
            make = python_mutants if file.suffix == ".py" else lua_mutants
            yield from make(path, file.read_bytes())


def sampled(room: Room, *, seed: int, count: int, root: Path = ROOT) -> list[Mutant]:
    """Sample some of a room's mutants: the same ones for the same seed and code."""
    every = list(mutants_of(room, root))
    random.Random(f"{seed} {room.name}").shuffle(every)
    programs = (mutant for mutant in every if mutant.is_valid((root / mutant.path).read_bytes()))
    return list(islice(programs, count))


class Mutation:
    """One whole run. Each room's tests must pass unchanged before its mutants are tried."""

    def __init__(self, trials: Sequence[Trial], *, ends_at_s: float) -> None:
        self._trials: SimpleQueue[Trial] = SimpleQueue()
        for trial in trials:
            self._trials.put(trial)
        self._count = len(trials)
        self._ends_at_s = ends_at_s
        self._equivalents = listed_equivalents()

    def room(self, room: Room, mutants: Sequence[Mutant]) -> list[Verdict]:
        """Try the mutants of a room; raise SystemExit if its tests fail without any."""
        trial = self._trials.get()
        base = trial.run(room.tests, timeout_s=BASE_TIMEOUT_S, keeps_bytecode=True)
        self._trials.put(trial)
        if not base.passed:
            raise SystemExit(f"{room.name}: the tests fail without any change: {base.failed}")
        print(f"{room.name}: {len(mutants)} mutants, {base.took_s:.0f} s of tests", flush=True)
        with ThreadPoolExecutor(self._count) as pool:
            return list(pool.map(lambda mutant: self._tried(room, mutant, timeout_s=20 + 3 * base.took_s), mutants))

    def _tried(self, room: Room, mutant: Mutant, *, timeout_s: float) -> Verdict:
        source = (ROOT / mutant.path).read_bytes()
        if any(each.is_of(mutant, source) for each in self._equivalents):
            return Verdict(mutant=mutant, room=room.name, word="equivalent")
        if time.monotonic() > self._ends_at_s:
            return Verdict(mutant=mutant, room=room.name, word="not tried")
        trial = self._trials.get()
        trial.apply(mutant)
        try:
            ran = trial.run(room.tests, timeout_s=timeout_s)
            if not ran.passed and "::" in ran.failed:  # is it the mutant, or a busy machine?
                again = trial.run([ran.failed], timeout_s=timeout_s)
                ran = ran if not again.passed else trial.run(room.tests, timeout_s=timeout_s)
        finally:
            trial.restore(mutant, source)
            self._trials.put(trial)
        word = "survived" if ran.passed else "killed"
        verdict = Verdict(mutant=mutant, room=room.name, word=word, by=ran.failed, took_s=ran.took_s)
        print(_report(verdict, source), flush=True)
        return verdict


def _report(verdict: Verdict, source: bytes) -> str:
    place = f"{verdict.mutant.path}:{verdict.mutant.line(source)} {verdict.mutant.kind}"
    by = f" by {verdict.by}" if verdict.word == "killed" else "\n" + verdict.mutant.diff(source)
    return f"  {verdict.took_s:5.1f} s  {place}: {verdict.word}{by}"


def summary(verdicts: Sequence[Verdict]) -> tuple[str, bool]:
    """Return a table by room, and whether enough of the tried mutants that are not equivalent were killed."""
    lines = [f"{'room':10} {'killed':>7} {'survived':>9} {'equivalent':>11} {'not tried':>10}"]
    words = ("killed", "survived", "equivalent", "not tried")
    total: Counter[str] = Counter()
    for name in dict.fromkeys(verdict.room for verdict in verdicts):
        counts = Counter(verdict.word for verdict in verdicts if verdict.room == name)
        total += counts
        lines.append(f"{name:10} {counts[words[0]]:7} {counts[words[1]]:9} {counts[words[2]]:11} {counts[words[3]]:10}")
    tried = total["killed"] + total["survived"]
    share = total["killed"] / tried if tried else math.nan
    lines.append(f"killed {total['killed']} of {tried} ({share:.0%}); wanted are {WANTED:.0%}")
    return "\n".join(lines), bool(tried) and share >= WANTED


def main() -> int:
    """Return 0 if enough of the sampled mutants were killed, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, default=10, help="how many mutants of each room")
    parser.add_argument("--rooms", default="", help="names, with commas: " + ", ".join(room.name for room in ROOMS))
    parser.add_argument("--minutes", type=float, default=30.0, help="when to begin no further mutant")
    parser.add_argument("--jobs", type=int, default=1, help="how many to try at the same time")
    parser.add_argument("--list", action="store_true", help="print the mutants, and try none")
    options = parser.parse_args()
    names = options.rooms.split(",") if options.rooms else [room.name for room in ROOMS]
    if unknown := set(names) - {room.name for room in ROOMS}:
        parser.error(f"no such room: {', '.join(sorted(unknown))}")
    rooms = [room for room in ROOMS if room.name in names]
    drawn = {room.name: sampled(room, seed=options.seed, count=options.sample) for room in rooms}
    if options.list:
        for mutant in (each for room in rooms for each in drawn[room.name]):
            print(mutant.diff((ROOT / mutant.path).read_bytes()))
        return 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trials = [Trial(ROOT, Path(folder) / str(number)) for number in range(options.jobs)]
        mutation = Mutation(trials, ends_at_s=time.monotonic() + options.minutes * 60)
        verdicts = [verdict for room in rooms for verdict in mutation.room(room, drawn[room.name])]
    text, is_enough = summary(verdicts)
    print(text)
    return 0 if is_enough else 1


if __name__ == "__main__":
    sys.exit(main())
