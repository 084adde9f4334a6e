"""The `Link` field (RFC 8288) with the first, previous, next and last slice of a list."""

import re
from urllib.parse import quote, unquote_to_bytes

from service.model.queries import Slice

# Query characters (RFC 3986, section 3.4) except those that could end a link or one of its parameters.
_CLEAN = re.compile(rb"[A-Za-z0-9._~!$()*+,:@/?=&%-]*")


def links(path: str, query: str, slice_: Slice, *, total: int) -> bytes:
    """Return the field's value: relative references with the caller's parameters (`link_query`) and another offset.

    No link leads beyond the end of the list, and there is no `prev` before the first record.
    """
    offset, limit = slice_.offset, slice_.limit
    last = (total - 1) // limit * limit if total else 0
    start = f"<{path}?{query}offset="
    first = f'{start}0>; rel="first", '
    previous = f'{start}{max(min(offset - limit, last), 0)}>; rel="prev", ' if offset > 0 else ""
    following = f'{start}{offset + limit}>; rel="next", ' if offset + limit < total else ""
    return f'{first}{previous}{following}{start}{last}>; rel="last"'.encode()


def link_to(path: str, query: str, offset: int) -> str:
    """Return a relative reference with the caller's parameters (`link_query`) and this offset."""
    return f"{path}?{query}offset={offset}"


def link_query(query_string: bytes) -> str:
    """Return the caller's parameters except the offset, re-encoded only where a link can't contain them, and the
    separator after them."""
    kept = b"&".join([pair for pair in query_string.split(b"&") if pair and not _is_offset(pair)])
    if not _CLEAN.fullmatch(kept):
        kept = quote(kept, safe="!$()*+,:@/?=&%").encode()
    return f"{kept.decode()}&" if kept else ""


def _is_offset(pair: bytes) -> bool:
    return pair.startswith(b"offset=") or (b"%" in pair and unquote_to_bytes(pair).startswith(b"offset="))
