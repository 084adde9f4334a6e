"""Request directives: freshness (`Cache-Control`, RFC 9111, 5.2.1) and patience (`Prefer: wait`, RFC 7240, 4.3)."""

import math
import re
from functools import lru_cache

import msgspec
from msgspec.structs import replace

from service.model.callers import Caller
from service.model.freshness import CacheDirectives
from service.observe.request import HeaderFields
from service.web.headers.field_list import list_items

DELTA_MAX_S = 2**31
"""Larger delta-seconds are treated as this value (RFC 9111, section 1.2.2)."""

_DIGITS = re.compile(r"[0-9]{1,4096}")
_NO_DIRECTIVES = CacheDirectives()
PARSED_MAX = 64
"""How many values of `Cache-Control` are remembered; clients repeat theirs."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long the caller will wait, in seconds. `applied_s` is the applied `Prefer: wait`, None if it sent none."""

    wait_s: float
    applied_s: int | None


def cache_directives_of(fields: HeaderFields, *, caller: Caller) -> CacheDirectives:
    """Parse `Cache-Control`, or `Pragma` if that is missing (RFC 9111, 5.4).

    Malformed directives are ignored, as are repetitions of a directive. A caller that may not force a fetch can't
    limit the age: its `no-cache`, `max-age` and `min-fresh` are dropped and `is_force_denied` is set.
    """
    text = fields.get(b"cache-control")
    if text is None:
        pragma = fields.get(b"pragma")
        if pragma is None or not any(item.name == "no-cache" for item in list_items(pragma)):
            return _NO_DIRECTIVES
        directives = CacheDirectives(no_cache=True)
    else:
        directives = _parse(text)
    if caller.may_force or not directives.bounds_age:
        return directives
    return replace(directives, no_cache=False, max_age_s=None, min_fresh_s=None, is_force_denied=True)


def patience_of(fields: HeaderFields, *, caller: Caller, default_s: float) -> Patience:
    """Return how long the caller will wait: its `Prefer: wait` or the default, bounded by its `wait_max_s`.

    Only the first valid `wait` preference counts (RFC 7240, 2); malformed ones are ignored.
    """
    text = fields.get(b"prefer")
    if text is not None:
        for item in list_items(text):
            if item.name != "wait":
                continue
            requested_s = _delta_s(item.value)
            if requested_s is not None and item.has_valid_rest:
                wait_s = min(requested_s, caller.wait_max_s)
                return Patience(wait_s=wait_s, applied_s=int(wait_s))
            break
    return Patience(wait_s=min(default_s, caller.wait_max_s), applied_s=None)


@lru_cache(maxsize=PARSED_MAX)
def _parse(field: bytes) -> CacheDirectives:
    values: dict[str, str | None] = {}
    for item in list_items(field):
        if not item.rest:
            values.setdefault(item.name, item.value)
    return CacheDirectives(
        no_cache=_is_bare(values, "no-cache"),
        max_age_s=_delta_s(values.get("max-age")),
        max_stale_s=math.inf if _is_bare(values, "max-stale") else _delta_s(values.get("max-stale")),
        min_fresh_s=_delta_s(values.get("min-fresh")),
        only_if_cached=_is_bare(values, "only-if-cached"),
        stale_if_error_s=_delta_s(values.get("stale-if-error")),
    )


def _is_bare(values: dict[str, str | None], name: str) -> bool:
    return name in values and values[name] is None


def _delta_s(text: str | None) -> int | None:
    if text is None or not _DIGITS.fullmatch(text):
        return None
    return DELTA_MAX_S if len(text.lstrip("0")) > 10 else min(int(text), DELTA_MAX_S)
