"""The chart's output for some sets of values, as files to review: `python -m tests.chart.golden` writes them.

golden/least.yaml has the complete output for the least values; every other file is the difference from that.
"""

import difflib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from tests.chart.matrix import MATRIX
from tests.chart.rendering import Values, texts

FOLDER = Path(__file__).parent / "golden"
LEAST = "least"
NAMES = (
    LEAST,
    "trying",
    "monitored",
    "autoscaled",
    "scaled on lag",
    "scaled from outside",
    "TLS and a proxy",
    "sentinel",
    "from outside",
    "placed",
    "on OpenShift",
    "all of a platform team's",
)

_KIND = re.compile(r"^kind: (.+)$", re.MULTILINE)
_SMALL: Values = {"dashboard": {"enabled": False}}  # 1,600 lines that are copies of those in helm/files/


def file_of(name: str) -> Path:
    """Return the path of the golden text of this set of values."""
    return FOLDER / f"{re.sub(r'[^a-z]+', '-', name.lower())}.{'yaml' if name == LEAST else 'diff'}"


def in_order(files: Mapping[str, str]) -> str:
    """Return the objects of these templates in one text, by template, kind and name; NOTES.txt makes none."""
    parts: list[tuple[str, str, str]] = []
    for source, text in files.items():
        for made in (part.strip("\n") for part in re.split(r"^---$", text, flags=re.MULTILINE)):
            if kind := _KIND.search(made):
                parts.append((source, kind[1], f"---\n# Source: {source}\n{made}\n"))
    return "".join(text for _, _, text in sorted(parts))


def golden(text: str, *, least: str, name: str) -> str:
    """Return what golden/ holds for a render: all of it, or how it differs from the least."""
    if name == LEAST:
        return text
    lines = difflib.unified_diff(least.splitlines(), text.splitlines(), n=2, lineterm="")
    return "".join(f"{'@@' if line.startswith('@@') else line}\n" for line in list(lines)[2:])


@cache
def rendered() -> dict[str, str]:
    """Return the golden text of each set of values, as the chart renders now."""
    made = {name: in_order(texts(MATRIX[name], _SMALL)) for name in NAMES}
    return {name: golden(text, least=made[LEAST], name=name) for name, text in made.items()}


def main() -> None:
    """Write all files of golden/."""
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    for name, text in rendered().items():
        file_of(name).write_text(text)


if __name__ == "__main__":
    main()
