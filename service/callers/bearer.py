"""The credential of an `Authorization: Bearer CREDENTIAL` field (RFC 6750, section 2.1)."""

import re

CREDENTIAL_MAX = 8192

_SCHEME = "Bearer "
_B64TOKEN = re.compile(rf"[A-Za-z0-9._~+/-]{{1,{CREDENTIAL_MAX}}}=*")
_AUTHORIZATION_MAX = CREDENTIAL_MAX + 64


def bearer_of(authorization: str | None) -> str:
    """What follows the scheme, which may be in any case (RFC 9110, section 11.1); empty where nothing does."""
    if authorization is None or len(authorization) > _AUTHORIZATION_MAX:
        return ""
    size = len(_SCHEME)
    if not authorization.startswith(_SCHEME) and authorization[:size].lower() != _SCHEME.lower():
        return ""
    return authorization[size:].strip(" \t")


def is_credential(text: str) -> bool:
    """Whether this can be one at all. What is known by its digest need not be asked."""
    return _B64TOKEN.fullmatch(text) is not None
