"""Strict parsing of query strings: anything ambiguous is a fault."""

import itertools
import re
from collections.abc import Mapping
from urllib.parse import unquote_to_bytes

from service.model.errors import Fault

FAULTS_MAX = 20
"""Maximum number of faults in one response."""

_NAME_MAX = 40
_PRINTABLE = (0x21, 0x7E)
_MARKUP = b"<>\"'&\\"
_BAD_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def read_query_string(query_string: bytes, *, known: Mapping[bytes, str]) -> tuple[dict[str, str], list[Fault]]:
    """Return known parameters by name, and a fault for each that is unknown, repeated, empty or not decodable."""
    texts: dict[str, str] = {}
    faults: list[Fault] = []
    seen: set[str] = set()
    for pair in query_string.split(b"&"):
        if not pair:
            continue
        raw_name, _, raw_value = pair.partition(b"=")
        name = known.get(raw_name) or known.get(_unquote(raw_name) or b"")
        if name is None:
            _add(faults, _escape(raw_name), "is not a parameter of this resource")
            continue
        if name in seen:
            _add(faults, name, "must be given once")
            texts.pop(name, None)
            continue
        seen.add(name)
        text = _decode(raw_value)
        if text is None:
            _add(faults, name, "must be UTF-8 with valid percent-encoding")
        elif not text:
            _add(faults, name, "is empty; leave it out instead")
        elif not text.isprintable() and _CONTROL.search(text):
            _add(faults, name, "must not contain control characters")
        else:
            texts[name] = text
    return texts, faults


def _add(faults: list[Fault], name: str, detail: str) -> None:
    """Append a fault unless it is a duplicate or the limit is reached."""
    fault = Fault(parameter=name, detail=detail)
    if len(faults) < FAULTS_MAX and fault not in faults:
        faults.append(fault)


def _unquote(raw: bytes) -> bytes | None:
    """Return the decoded bytes of a name or a value; None if a percent sign is not followed by a number."""
    raw = raw.replace(b"+", b" ")
    if b"%" in raw:
        return None if _BAD_PERCENT.search(raw) else unquote_to_bytes(raw)
    return raw


def _decode(raw: bytes) -> str | None:
    unquoted = _unquote(raw)
    try:
        return None if unquoted is None else unquoted.decode()
    except UnicodeDecodeError:
        return None


def _escape(raw: bytes) -> str:
    """Return an unknown name in a form that is safe to echo: percent-encoded, printable ASCII only, and truncated."""
    safe = (
        chr(byte) if _PRINTABLE[0] <= byte <= _PRINTABLE[1] and byte not in _MARKUP else f"%{byte:02X}" for byte in raw
    )
    return "".join(itertools.islice(safe, _NAME_MAX))[:_NAME_MAX]
