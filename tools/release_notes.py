"""Print the section of CHANGELOG.md for one version: `python tools/release_notes.py 0.1.0`."""

import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"


def notes(changelog: str, version: str) -> str:
    """Return the section of a version without its heading. Raise LookupError where there is none, or an empty one."""
    heading = re.compile(rf"^## \[{re.escape(version)}\].*$", re.MULTILINE)
    found = heading.search(changelog)
    if found is None:
        raise LookupError(f"CHANGELOG.md has no section [{version}]")
    text = re.split(r"^## |^\[[^]]+\]: ", changelog[found.end() :], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not text:
        raise LookupError(f"CHANGELOG.md says nothing of [{version}]")
    return text


if __name__ == "__main__":
    print(notes(CHANGELOG.read_text(), sys.argv[1]))
