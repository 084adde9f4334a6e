"""Rules of this repository that linters don't cover: `python -m tools.check_tree`, part of `make check`."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]
BINARY_MAX_BYTES = 200_000
LARGE_BINARIES = frozenset(("service/web/docs/scalar.js.gz",))
"""Committed binaries that may be larger, each with a reason: the API's documentation works without internet."""

ENTRY_POINTS = frozenset(("main", "run"))
"""Functions that start a program or a command of the command line: the module says of what."""

LINES_MAX = 400
"""Lines that a file of code may have."""

_REFERENCE = re.compile(
    r"(?<![\w./-])((?:service|tests|tools|docs|helm|openapi|requirements)/[\w./-]*"
    r"\.(?:py|lua|md|toml|ya?ml|json|txt|sh|js|css|html)|"
    r"(?:unit|http|integration|contract|simulation|scenes)/[\w./]+\.py)(?:::(test_\w+))?(?![\w/])"
)
"""A path as texts name it, below the top or below `tests/`, and perhaps a test in it."""
_TYPE_NAME = re.compile(r"[A-Z]\w*[a-z]\w*")
_STATUS = re.compile(r"^\*\*Status:\*\* (?:(accepted|proposed)|superseded by \[ADR (\d+)\])", re.MULTILINE)


def main() -> int:
    """Print each fault. Return 1 if there is one."""
    faults = [
        *large_binaries(TOP, committed(TOP)),
        *long_files(TOP, committed(TOP)),
        *duplicate_names(TOP / "service"),
        *unindexed_decisions(TOP / "docs" / "adr"),
        *dangling_references(TOP, committed(TOP)),
    ]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def committed(top: Path) -> tuple[str, ...]:
    """Return the paths that git tracks; none outside a clone."""
    if not (top / ".git").exists():
        return ()
    listed = subprocess.run(("git", "ls-files", "-z"), cwd=top, check=True, capture_output=True)  # noqa: S607 - from the PATH
    return tuple(path for path in listed.stdout.decode().split("\0") if path)


def large_binaries(top: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield a fault for each large binary that is not on the list, and for each name on the list without a file."""
    seen = set()
    for path in paths:
        file = top / path
        seen.add(path)
        if path in LARGE_BINARIES or not file.is_file() or file.stat().st_size <= BINARY_MAX_BYTES:
            continue
        if b"\0" in file.read_bytes():
            yield f"{path}: a binary of more than {BINARY_MAX_BYTES} bytes; is it meant to be committed?"
    for path in sorted(LARGE_BINARIES - seen) if seen else ():
        yield f"{path}: on the list of large binaries, but not committed"


def long_files(top: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield a fault for each long file of Python or Lua."""
    for path in paths:
        if path.endswith((".py", ".lua")) and (top / path).read_bytes().count(b"\n") > LINES_MAX:
            yield f"{path}: more than {LINES_MAX} lines; is it one subject?"


def duplicate_names(package: Path) -> Iterator[str]:
    """Yield a fault for each name that more than one class, function or type of a package has.

    Names with an underscore are private, and those of type variables (`T`) say nothing.
    """
    places: defaultdict[str, list[str]] = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        module = ast.parse(file.read_bytes())
        nested = [node for node in ast.walk(module) if isinstance(node, ast.ClassDef) and node not in module.body]
        for node in (*module.body, *nested):
            name = defined_name(node)
            if name is not None and not name.startswith("_") and name not in ENTRY_POINTS:
                places[name].append(f"{file.relative_to(package)}:{node.lineno}")
    for name, where in sorted(places.items()):
        if len(where) > 1:
            yield f"{name} has {len(where)} definitions: {', '.join(where)}"


def defined_name(node: ast.stmt) -> str | None:
    """Return the name of the class, function or type (`Name = ...`) that this defines; None if it defines none."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) if _TYPE_NAME.fullmatch(name):
            return name
    return None


def unindexed_decisions(folder: Path) -> Iterator[str]:
    """Yield a fault for each decision without a status, and for each that `README.md` does not list with it."""
    index = (folder / "README.md").read_text()
    for file in sorted(folder.glob("[0-9]*.md")):
        text = file.read_text()
        status = _STATUS.search(text)
        if status is None:
            yield f"{file.name}: no line '**Status:** accepted.' or '**Status:** superseded by [ADR N](...).'"
            continue
        title = text.partition("\n")[0].partition(". ")[2]
        word = status[1] or f"superseded by {status[2]}"
        row = f"| {int(file.name[:4])} | [{title}]({file.name}) | {word} |"
        if row not in index:
            yield f"{file.name}: README.md should have the row {row}"


def dangling_references(top: Path, paths: Iterable[str]) -> Iterator[str]:
    """Yield a fault for each file or test that a text names but does not exist; superseded decisions are exempt."""
    known = frozenset(paths)
    for path in sorted(known):
        if not (path.endswith((".md", ".toml", "Makefile")) or path.startswith("tests/mutants/")):
            continue
        text = (top / path).read_text()
        status = _STATUS.search(text)
        if path == "CHANGELOG.md" or (status is not None and status[2]):
            continue
        for match in _REFERENCE.finditer(text):
            named = match[1] if match[1] in known else f"tests/{match[1]}"
            if named not in known:
                yield f"{path}: {match[1]} does not exist"
            elif match[2] and f"def {match[2]}(" not in (top / named).read_text():
                yield f"{path}: {match[1]} has no {match[2]}"


if __name__ == "__main__":
    sys.exit(main())
