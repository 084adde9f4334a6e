"""Service account tokens (JWT, RFC 7519): which are accepted, and what a valid one contains."""

import msgspec


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer whose tokens are accepted, and the audience that they must name."""

    issuer: str
    audience: str


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A valid token: its account as NAMESPACE/NAME, and its expiry, in seconds since the epoch."""

    account: str
    ends_s: float


def looks_like_token(credential: bytes) -> bool:
    """Return whether this has the form of a token: three parts (RFC 7515, section 7.1)."""
    return credential.count(b".") == 2
