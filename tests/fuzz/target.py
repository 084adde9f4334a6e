"""Fuzz targets, and how their inputs are generated: from the corpus, by mutating it, and from pieces.

A corpus is a text file with one input a line, written as Python writes bytes without the quotes (`\\r\\n`, `\\xff`).
Hypothesis generates and shrinks the inputs: it runs wherever the tests run, and a failure is a short input to add here.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
from hypothesis import HealthCheck
from hypothesis import strategies as st

CORPUS = Path(__file__).with_name("corpus")
INPUT_MAX_BYTES = 8 * 1024


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One parser. `check` feeds it an input and raises AssertionError, or an exception that it should not raise.

    `pieces` are parts of inputs in addition to the corpus file `name`.txt.
    """

    name: str
    check: Callable[[bytes], object]
    pieces: tuple[bytes, ...]

    @property
    def seeds(self) -> list[bytes]:
        """The inputs of the corpus."""
        lines = (CORPUS / f"{self.name}.txt").read_text().splitlines()
        return [ast.literal_eval("b'" + line.replace("'", "\\'") + "'") for line in lines if line]

    def inputs(self) -> st.SearchStrategy[bytes]:
        """Inputs of all kinds."""
        seeds = st.sampled_from(self.seeds)
        piece = st.one_of(st.sampled_from(self.pieces), st.binary(min_size=1, max_size=3))
        built = st.lists(piece, max_size=24).map(b"".join)
        place = st.integers(0, 4096)
        edits = st.lists(st.tuples(st.sampled_from(_EDITS), place, place, st.one_of(piece, seeds)), max_size=6)
        return st.one_of(seeds, st.builds(_edited, seeds, edits), built)


def explore(target: Target, *, examples: int, seed: int | None = None) -> None:
    """Check this many inputs: the same ones each time, or those of a seed."""

    @hypothesis.settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    @hypothesis.given(target.inputs())
    def check(data: bytes) -> None:
        target.check(data)

    run: Any = check if seed is None else hypothesis.seed(seed)(check)
    run()


def _edited(seed: bytes, edits: list[tuple[Callable[..., bytes], int, int, bytes]]) -> bytes:
    """Return the seed after some edits, each at two places modulo the length."""
    data = seed
    for edit, first, second, piece in edits:
        start, stop = sorted((first % (len(data) + 1), second % (len(data) + 1)))
        data = edit(data, start, stop, piece)[:INPUT_MAX_BYTES]
    return data


def _insert(data: bytes, start: int, _: int, piece: bytes) -> bytes:
    return data[:start] + piece + data[start:]


def _replace(data: bytes, start: int, _: int, piece: bytes) -> bytes:
    return data[:start] + piece + data[start + len(piece) :]


def _drop(data: bytes, start: int, stop: int, _: bytes) -> bytes:
    return data[:start] + data[stop:]


def _repeat(data: bytes, start: int, stop: int, _: bytes) -> bytes:
    return data[:stop] + data[start:]


def _flip(data: bytes, start: int, stop: int, _: bytes) -> bytes:
    return data[:start] + bytes(byte ^ 1 << stop % 8 for byte in data[start : start + 1]) + data[start + 1 :]


def _cut(data: bytes, start: int, _: int, __: bytes) -> bytes:
    return data[:start]


def _splice(data: bytes, start: int, stop: int, piece: bytes) -> bytes:
    return data[:start] + piece[len(piece) // 2 :] + data[stop:]


_EDITS: tuple[Callable[[bytes, int, int, bytes], bytes], ...] = (
    _insert,
    _replace,
    _drop,
    _repeat,
    _flip,
    _cut,
    _splice,
)
