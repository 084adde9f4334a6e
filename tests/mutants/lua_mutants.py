"""Mutants of a Lua file, derived from its text: operators, numbers, and one-line statements."""

import re
from collections.abc import Iterator

from tests.mutants.mutant import Mutant

_SWAPS = (
    (re.compile(rb"<="), "<"),
    (re.compile(rb">="), ">"),
    (re.compile(rb"<(?!=)"), "<="),
    (re.compile(rb"(?<!~)>(?!=)"), ">="),
    (re.compile(rb"=="), "~="),
    (re.compile(rb"~="), "=="),
    (re.compile(rb"(?<= )\+(?= )"), "-"),
    (re.compile(rb"(?<= )-(?= )"), "+"),
    (re.compile(rb"(?<= )\*(?= )"), "/"),
    (re.compile(rb"\band\b"), "or"),
    (re.compile(rb"\bor\b"), "and"),
    (re.compile(rb"\bnot (?=\w)"), ""),
    (re.compile(rb"math\.max"), "math.min"),
    (re.compile(rb"math\.min"), "math.max"),
    (re.compile(rb"\btrue\b"), "false"),
    (re.compile(rb"\bfalse\b"), "true"),
)
_NUMBER = re.compile(rb"(?<![\w.\[])\d+(?![\w.\]])")
_OPAQUE = re.compile(rb"--[^\n]*|'[^'\n]*'")
_STATEMENT = re.compile(
    rb"^ +(?!local |if |for |while |return\b|end\b|else|function |\{)[\w.\[\]]+[^\n{]*$", re.MULTILINE
)
_FIELDS = re.compile(rb"^local [A-Z_, \n]+= [\d, \n]+(?: *--[^\n]*)?$", re.MULTILINE)
"""Field numbers, which only have to differ."""


def lua_mutants(path: str, source: bytes) -> Iterator[Mutant]:
    """Return mutants of everything but comments, strings and field numbers."""
    opaque = [match.span() for match in (*_OPAQUE.finditer(source), *_FIELDS.finditer(source))]

    def is_code(start: int, stop: int) -> bool:
        return not any(start < end and stop > begin for begin, end in opaque)

    for pattern, text in _SWAPS:
        for match in pattern.finditer(source):
            if is_code(*match.span()):
                yield Mutant(path=path, kind="operator", start=match.start(), stop=match.end(), text=text)
    for match in _NUMBER.finditer(source):
        if is_code(*match.span()):
            text = str(int(match[0]) + 1)
            yield Mutant(path=path, kind="constant", start=match.start(), stop=match.end(), text=text)
    for match in _STATEMENT.finditer(source):
        if _is_whole(match[0]) and not any(begin <= match.start() < end for begin, end in opaque):
            indent = len(match[0]) - len(match[0].lstrip())
            yield Mutant(
                path=path, kind="statement left out", start=match.start() + indent, stop=match.end(), text="do end"
            )


def _is_whole(line: bytes) -> bool:
    """Return whether a line is a complete statement, judging by its brackets and its end."""
    is_open = line.count(b"(") != line.count(b")") or line.count(b"{") != line.count(b"}")
    is_change = re.search(rb"[^=<>~]=[^=]", line) is not None or line.rstrip().endswith(b")")
    return not is_open and is_change and not line.rstrip().endswith((b",", b"=", b"then", b"or", b"and"))
