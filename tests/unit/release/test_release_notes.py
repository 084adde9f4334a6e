"""The notes of a release."""

import pytest

from service import __version__
from tools.release_notes import CHANGELOG, notes

TEXT = """# Changelog

## [Unreleased]

## [1.10.0] - 2027-01-02

### Added
- Ten.

## [1.1.0] - 2026-12-01

### Fixed
- One: see [0.9.0].

[1.10.0]: https://example/compare
"""


def test_the_section_of_a_version_is_found() -> None:
    """Without its heading, to the next one or to the links at the end."""
    assert notes(TEXT, "1.10.0") == "### Added\n- Ten."
    assert notes(TEXT, "1.1.0") == "### Fixed\n- One: see [0.9.0]."


@pytest.mark.parametrize(
    ("version", "why"), [("1.1", "no section"), ("1x1.0", "no section"), ("Unreleased", "nothing")]
)
def test_a_version_without_notes_is_rejected(version: str, why: str) -> None:
    """A release never has the notes of another, or none."""
    with pytest.raises(LookupError, match=why):
        notes(TEXT, version)


def test_this_version_has_notes() -> None:
    """The current version has notes, so that it can be tagged."""
    assert notes(CHANGELOG.read_text(), __version__)
