"""What a caller asks for in header fields: freshness (`Cache-Control`) and patience (`Prefer: wait`)."""

import math
import re
from collections.abc import Iterator

import msgspec

from service.model.callers import Caller
from service.model.freshness import CacheDirectives
from service.observe.request import Fields

DELTA_MAX_S = 2**31
"""RFC 9111, section 1.2.2: delta-seconds that are too large to be told are taken as this."""

# Possessive throughout: a field that does not match fails in linear time.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_ITEM = re.compile(
    rf"[ \t]*+(?:({_WORD})(?:[ \t]*+=[ \t]*+({_WORD}|{_QUOTED}))?+)?+((?:[^,\"]|{_QUOTED})*+)(?:,|$)", re.DOTALL
)
_ESCAPED = re.compile(r"\\(.)")
_DIGITS = re.compile(r"[0-9]{1,4096}")
_ITEMS_MAX = 64

_NO_DEMANDS = CacheDirectives()


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long the caller will wait, in seconds; `applied_s` is what of its own wish was applied, if it had one."""

    wait_s: float
    applied_s: int | None


def demands_of(fields: Fields, *, caller: Caller) -> CacheDirectives:
    """The freshness that the caller wants; malformed directives are ignored, and repeated ones after the first.

    A caller that may not force a fetch can't ask for anything newer than what is stored.
    """
    text = fields.get(b"cache-control")
    if text is None:
        pragma = fields.get(b"pragma")  # RFC 9111, section 5.4: only where there is no Cache-Control
        if pragma is None or not any(name == "no-cache" for name, _, _ in _items(pragma)):
            return _NO_DEMANDS
        return CacheDirectives(no_cache=caller.may_force)
    said: dict[str, str | None] = {}
    for name, value, rest in _items(text):
        if not rest:
            said.setdefault(name, value)
    max_stale_s = _delta_s(said.get("max-stale"))
    return CacheDirectives(
        no_cache=caller.may_force and _is_bare(said, "no-cache"),
        max_age_s=_delta_s(said.get("max-age")) if caller.may_force else None,
        max_stale_s=math.inf if _is_bare(said, "max-stale") else max_stale_s,
        min_fresh_s=_delta_s(said.get("min-fresh")) if caller.may_force else None,
        only_if_cached=_is_bare(said, "only-if-cached"),
        stale_if_error_s=_delta_s(said.get("stale-if-error")),
    )


def patience_of(fields: Fields, *, caller: Caller, default_s: float) -> Patience:
    """How long the caller will wait: its `Prefer: wait` (RFC 7240, 4.3) or the default, at most what it may.

    Of a preference that is said twice only the first counts (RFC 7240, 2); one that can't be read is ignored.
    """
    text = fields.get(b"prefer")
    if text is not None:
        for name, value, rest in _items(text):
            if name != "wait":
                continue
            asked_s = _delta_s(value)
            if asked_s is not None and (not rest or rest.startswith(";")):
                wait_s = min(asked_s, caller.wait_max_s)
                return Patience(wait_s=wait_s, applied_s=int(wait_s))
            break
    return Patience(wait_s=min(default_s, caller.wait_max_s), applied_s=None)


def _items(field: bytes) -> Iterator[tuple[str, str | None, str]]:
    """The items of a list (RFC 9110, 5.6.1): name in lower case, value without quotes, and what follows them."""
    text = field.decode("latin-1")
    position = 0
    for _ in range(_ITEMS_MAX):
        item = _ITEM.match(text, position)
        if item is None or position >= len(text):
            return
        name, value, rest = item.groups()
        if name is not None:
            if value is not None and value.startswith('"'):
                value = _ESCAPED.sub(r"\1", value[1:-1])
            yield name.lower(), value, (rest or "").strip()
        position = item.end()


def _is_bare(said: dict[str, str | None], name: str) -> bool:
    return name in said and said[name] is None


def _delta_s(text: str | None) -> int | None:
    if text is None or not _DIGITS.fullmatch(text):
        return None
    return DELTA_MAX_S if len(text.lstrip("0")) > 10 else min(int(text), DELTA_MAX_S)
