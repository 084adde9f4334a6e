"""Content negotiation (RFC 9110, 12.5.1): which form of a resource the field `Accept` asks for."""

import re
from collections.abc import Iterator, Sequence

# Possessive throughout: a field that does not match fails in linear time.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+"'
_ITEM = re.compile(rf"[ \t]*+(?:({_WORD}/{_WORD}))?+((?:[^,\"]|{_QUOTED})*+)(?:,|$)")
_TEXTS = re.compile(_QUOTED)
_WEIGHT = re.compile(r";[ \t]*+q=(?:(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)(?![^ \t;])|)", re.IGNORECASE)
_RANGES_MAX = 64


def choose(accept: bytes | None, offered: Sequence[str]) -> str | None:
    """The media type that the caller likes best, of equals the first offered; None where it takes none of them.

    A field that is missing, or of which nothing can be read, takes anything. Parameters of media types are not told
    apart.
    """
    weights: dict[str, float] = {}
    for range_, weight in _ranges(accept or b""):
        weights[range_] = max(weight, weights.get(range_, 0.0))
    if not weights:
        return offered[0]
    best, best_weight = None, 0.0
    for media_type in offered:
        kinds = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        weight = next((weights[kind] for kind in kinds if kind in weights), 0.0)
        if weight > best_weight:
            best, best_weight = media_type, weight
    return best


def _ranges(field: bytes) -> Iterator[tuple[str, float]]:
    """The media ranges in lower case, with their weights; those that can't be read are left out."""
    text = field.decode("latin-1")
    position = 0
    for _ in range(_RANGES_MAX):
        item = _ITEM.match(text, position)
        if item is None or position >= len(text):
            return
        position = item.end()
        range_, rest = item.groups()
        rest = _TEXTS.sub("", rest).strip()
        weight = _WEIGHT.search(rest)
        if range_ is not None and (not rest or rest.startswith(";")) and (weight is None or weight[1]):
            yield range_.lower(), 1.0 if weight is None else float(weight[1])
