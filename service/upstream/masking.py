"""Removes signatures from texts that others will read, in whatever form the upstream echoes them."""

import base64
import re
import zlib
from urllib.parse import unquote

import msgspec

MASK = "[signature]"
PIECE_CHARS = 8
"""A run of this many letters and digits of a signature counts as a piece of it."""

_LOOKS_LIKE_ONE = re.compile(r"eJ[A-Za-z0-9*_%+/=-]{40,}", re.ASCII)
_FROM_VENDOR = str.maketrans("*-_", "+/=")


def masked(text: str, *, signature: str) -> str:
    """Return the text without the signature, its HMAC, pieces of either, or anything that looks like a signature.

    Only letters and digits are compared, so that base64 alphabets, escapes, and whatever separates the pieces make no
    difference. A signature that has since been replaced stays valid for a long time, so anything that merely looks like
    one is removed, too.
    """
    text = _LOOKS_LIKE_ONE.sub(MASK, unquote(text).replace("\\/", "/"))
    places = [place for place, char in enumerate(text) if char.isascii() and char.isalnum()]
    letters = "".join(text[place] for place in places)
    pieces = _pieces(signature)
    covered: list[tuple[int, int]] = []
    for start in range(len(letters) - PIECE_CHARS + 1):
        if letters[start : start + PIECE_CHARS] in pieces:
            first, last = places[start], places[start + PIECE_CHARS - 1] + 1
            if covered and first <= covered[-1][1]:
                covered[-1] = (covered[-1][0], last)
            else:
                covered.append((first, last))
    for first, last in reversed(covered):
        text = text[:first] + MASK + text[last:]
    return text


def _pieces(signature: str) -> frozenset[str]:
    found: set[str] = set()
    for form in _forms(signature):
        letters = "".join(char for char in form if char.isascii() and char.isalnum())
        found.update(letters[at : at + PIECE_CHARS] for at in range(len(letters) - PIECE_CHARS + 1))
    return frozenset(found)


def _forms(signature: str) -> tuple[str, ...]:
    """Return the signature, and the HMAC within it as base64 and in hex."""
    try:
        packed = base64.b64decode(signature.translate(_FROM_VENDOR), validate=True)
        fields = msgspec.json.decode(zlib.decompress(packed), type=dict[str, msgspec.Raw])
        mac = msgspec.json.decode(fields["TLS.sig"], type=str)
        as_hex = base64.b64decode(mac).hex()
    except (ValueError, zlib.error, msgspec.MsgspecError, KeyError):  # not one of our signatures
        return (signature,)
    return (signature, mac, as_hex, as_hex.upper())
