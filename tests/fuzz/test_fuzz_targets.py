"""Every parser that outsiders can reach, against generated inputs: the same few in each run, and many more in a long
one."""

import os
import time

import pytest

from tests.fuzz import field_targets, http_targets, redis_targets, token_targets
from tests.fuzz.target import Target, explore

TARGETS: tuple[Target, ...] = (
    *field_targets.TARGETS,
    *token_targets.TARGETS,
    *http_targets.TARGETS,
    *redis_targets.TARGETS,
)
EXAMPLES = 150
LONG_S = float(os.environ.get("FUZZ_SECONDS", "60"))
"""How long a long run takes for each target."""
ROUND = 2000

each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@each_target
def test_the_corpus_and_its_variations_are_read(target: Target) -> None:
    """Each seed, and a few hundred inputs made from them."""
    for seed in target.seeds:
        target.check(seed)
    explore(target, examples=EXAMPLES)


@each_target
def test_long_inputs_take_little_time(target: Target) -> None:
    """Eight kilobytes of any piece or seed, over and over, are read in a fraction of a second."""
    for piece in (*target.pieces, *target.seeds):
        data = (piece * (8192 // len(piece) + 1))[:8192]
        began_s = time.process_time()
        target.check(data)
        assert time.process_time() - began_s < 1.0, piece


@pytest.mark.long
@each_target
def test_new_inputs_are_read_for_a_minute(target: Target) -> None:
    """New inputs in each round, by the round's number: a failure names the input."""
    end_s = time.monotonic() + LONG_S
    number = 0
    while time.monotonic() < end_s:
        number += 1
        explore(target, examples=ROUND, seed=number)
