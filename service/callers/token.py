"""Tokens of service accounts (JWT, RFC 7519): which are accepted, and what a good one holds."""

import msgspec


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer whose tokens are accepted, and the audience that they must name."""

    issuer: str
    audience: str


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A good token: its account as NAMESPACE/NAME, and when it ends, in seconds since the epoch."""

    account: str
    ends_s: float


def looks_like_token(credential: bytes) -> bool:
    """Whether this can be a token at all: three parts (RFC 7515, section 7.1)."""
    return credential.count(b".") == 2
