"""Mutants without observable effect, as listed in equivalent.toml, each with its reason."""

import tomllib
from pathlib import Path

import msgspec

from tests.mutants.mutant import Mutant

LISTED = Path(__file__).with_name("equivalent.toml")


class Equivalent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A change identified by its lines, so that it is still found when other lines move, and why it is equivalent.

    `follows`, if given, is the preceding line, needed if the same change exists elsewhere in the file.
    """

    path: str
    before: str
    after: str
    reason: str
    follows: str = ""

    def is_of(self, mutant: Mutant, source: bytes) -> bool:
        """Return whether this is the mutant."""
        if self.path != mutant.path or (self.before, self.after) != mutant.lines(source):
            return False
        return not self.follows or self.follows == source.splitlines()[mutant.line(source) - 2].decode().strip()


class _Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    equivalent: list[Equivalent] = []


def listed_equivalents(path: Path = LISTED) -> tuple[Equivalent, ...]:
    """Return the committed list."""
    return tuple(msgspec.convert(tomllib.loads(path.read_text()), _Listed).equivalent)
