"""A service account's token (a JWT, RFC 7519): whose are good, and what a good one tells."""

import msgspec


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens are good, and only where they are meant for us."""

    issuer: str
    audience: str


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A good token: its account as NAMESPACE/NAME, and when it ends, in seconds since the epoch."""

    account: str
    ends_s: float


def looks_like_token(credential: bytes) -> bool:
    """Whether this can be a token at all: three parts (RFC 7515, section 7.1)."""
    return credential.count(b".") == 2
