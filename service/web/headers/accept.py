"""Content negotiation (RFC 9110, 12.5.1): selection of a media type by the `Accept` field."""

from collections.abc import Sequence

from service.web.headers.field_list import list_items


def choose_media_type(accept: bytes | None, offered: Sequence[str]) -> str | None:
    """Return the media type that the caller prefers, or None if it accepts none of those offered.

    With equal weights a type that is named wins over one that only matches a range, then the first offered wins.

    A missing field, or one without any valid item, accepts anything. Media type parameters are ignored.
    """
    if accept is None or accept == b"*/*":
        return offered[0]
    weights: dict[str, float] = {}
    for item in list_items(accept):
        if "/" in item.name and (weight := item.weight) is not None:
            weights[item.name] = max(weight, weights.get(item.name, 0.0))
    if not weights:
        return offered[0]
    best, best_rank = None, (0.0, False)
    for media_type in offered:
        ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
        weight = next((weights[each] for each in ranges if each in weights), 0.0)
        rank = weight, media_type in weights
        if weight and rank > best_rank:
            best, best_rank = media_type, rank
    return best
