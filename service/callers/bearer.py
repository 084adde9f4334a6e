"""The credential of an `Authorization: Bearer CREDENTIAL` field (RFC 6750, section 2.1)."""

import re

CREDENTIAL_MAX = 8192

_SCHEME = b"bearer "
_B64TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{1,%d}=*" % CREDENTIAL_MAX)
_AUTHORIZATION_MAX = CREDENTIAL_MAX + 64


def bearer_of(authorization: bytes | None) -> bytes:
    """Return the text after the scheme, in any case (RFC 9110, section 11.1); empty if there is none."""
    if authorization is None or len(authorization) > _AUTHORIZATION_MAX:
        return b""
    size = len(_SCHEME)
    if authorization[:size].lower() != _SCHEME:
        return b""
    return authorization[size:].strip(b" \t")


def is_credential(text: bytes) -> bool:
    """Return whether this is a well-formed credential. Those known by their digest need no such check."""
    return _B64TOKEN.fullmatch(text) is not None
