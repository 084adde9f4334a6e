"""The credential of an `Authorization: Bearer CREDENTIAL` field (RFC 6750, section 2.1)."""

import re

CREDENTIAL_MAX = 8192

# b64token; the scheme in any case (RFC 9110, section 11.1).
_BEARER = re.compile(rf"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]{{1,{CREDENTIAL_MAX}}}=*)[ \t]*")
_AUTHORIZATION_MAX = CREDENTIAL_MAX + 64


def bearer_of(authorization: str | None) -> str:
    """The credential; empty where there is none, or one that can't be any."""
    if authorization is None or len(authorization) > _AUTHORIZATION_MAX:
        return ""
    found = _BEARER.fullmatch(authorization)
    return found.group(1) if found else ""
