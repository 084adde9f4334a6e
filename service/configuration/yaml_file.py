"""A YAML document as plain values: scalars of YAML 1.2's core schema, without aliases, tags and duplicate keys.

It is built from the parser's events, because the C parser's own composer overflows its stack on deep nesting, and
PyYAML's YAML 1.1 constructors convert dates, `on` and `12:30` unexpectedly.
"""

import re
from collections.abc import Callable

import yaml

from service.configuration.errors import SettingFault

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
Tree = dict[str, Value]

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 16

_READER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]{1,20}", re.ASCII)
# Bounded, so that a SHA-256 that happens to be all digits stays a string.
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,20}|[0-9]{1,20}(?:\.[0-9]{0,20})?)(?:[eE][-+]?[0-9]{1,4})?", re.ASCII)
_CONSTANTS: dict[str, Value] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def read_document(raw: bytes, *, name: str) -> tuple[Tree, list[SettingFault]]:
    """Read one document; faults carry `name` and line numbers. On a syntax error the tree is empty."""
    if len(raw) > MAX_BYTES:
        return {}, [SettingFault(path=name, text=f"is larger than {MAX_BYTES} bytes")]
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        return {}, [SettingFault(path=f"{name} line {line}", text="not UTF-8")]
    builder = _Builder(name)
    try:
        for event in yaml.parse(text, Loader=_READER):
            builder.handle(event)
    except yaml.YAMLError as exc:
        return {}, [_syntax_fault(exc, text, name)]
    except _InvalidYaml as exc:
        return {}, [exc.fault]
    root = {} if builder.root is None else builder.root
    if isinstance(root, dict):
        return root, builder.faults
    return {}, [*builder.faults, SettingFault(path=name, text="expected sections (`apps:`, `redis:`, ...) at the top")]


def plain_scalar(text: str) -> Value:
    """Return the value of an unquoted scalar (YAML 1.2.2, section 10.3.2, without octal and hexadecimal numbers)."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _InvalidYaml(Exception):
    """The document can't be read any further."""

    def __init__(self, fault: SettingFault) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Builder:
    """Build the tree from events; `faults` are those that do not stop it."""

    def __init__(self, name: str) -> None:
        self.root: Value = None
        self.faults: list[SettingFault] = []
        self._name = name
        self._documents = 0
        self._put: list[Callable[[Value, yaml.Event], None]] = [self._put_root]

    def handle(self, event: yaml.Event) -> None:
        match event:
            case yaml.AliasEvent():
                raise _InvalidYaml(self._fault(event, "aliases (*name) are not supported; write the value out"))
            case yaml.ScalarEvent() | yaml.CollectionStartEvent() if event.tag not in (None, "!"):
                raise _InvalidYaml(self._fault(event, "tags (!name) are not supported"))
            case yaml.ScalarEvent():
                self._put[-1](plain_scalar(event.value) if event.style in (None, "") else event.value, event)
            case yaml.MappingStartEvent():
                mapping: Tree = {}
                self._open(mapping, self._keys_of(mapping), event)
            case yaml.SequenceStartEvent():
                items: list[Value] = []
                self._open(items, lambda value, _: items.append(value), event)
            case yaml.CollectionEndEvent():
                self._put.pop()
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise _InvalidYaml(self._fault(event, "a second document (---); one is expected"))

    def _open(self, value: Value, put: Callable[[Value, yaml.Event], None], event: yaml.Event) -> None:
        if len(self._put) > MAX_DEPTH:
            raise _InvalidYaml(self._fault(event, f"nested deeper than {MAX_DEPTH}"))
        self._put[-1](value, event)
        self._put.append(put)

    def _put_root(self, value: Value, event: yaml.Event) -> None:
        del event
        self.root = value

    def _keys_of(self, mapping: Tree) -> Callable[[Value, yaml.Event], None]:
        """Accept keys and values alternately. A key is always text, whatever it looks like."""
        key: str | None = None

        def put(value: Value, event: yaml.Event) -> None:
            nonlocal key
            if key is not None:
                mapping[key] = value
                key = None
            elif not isinstance(event, yaml.ScalarEvent):
                raise _InvalidYaml(self._fault(event, "a key must be a plain word"))
            else:
                key = str(event.value)
                if key in mapping:
                    self.faults.append(self._fault(event, f"the key {key!r} occurs twice"))

        return put

    def _fault(self, event: yaml.Event, text: str) -> SettingFault:
        line = event.start_mark.line + 1 if event.start_mark else 1
        return SettingFault(path=f"{self._name} line {line}", text=text)


def _syntax_fault(exc: yaml.YAMLError, text: str, name: str) -> SettingFault:
    """Return where and what is wrong, without the line's content."""
    if isinstance(exc, yaml.reader.ReaderError):
        line = text.count("\n", 0, max(exc.position, 0)) + 1
        return SettingFault(path=f"{name} line {line}", text="a control character")
    mark = exc.problem_mark if isinstance(exc, yaml.MarkedYAMLError) else None
    if mark is None or not isinstance(exc, yaml.MarkedYAMLError):
        return SettingFault(path=name, text="not YAML")
    line, lines = mark.line + 1, text.split("\n")
    before = lines[mark.line][: mark.column + 1] if mark.line < len(lines) else ""
    if before.endswith("\t") and not before.strip():
        return SettingFault(path=f"{name} line {line}", text="a tab; indent with spaces")
    problem = "; ".join(part for part in (exc.context, exc.problem) if part)
    return SettingFault(path=f"{name} line {line}", text=f"not YAML: {problem}")
