"""Service account tokens (JWT, RFC 7519): which are accepted, what a valid one contains, and those verified already."""

import msgspec

from service.cache.lru import LruTable

TOKENS_MAX = 10_000


class TokenTrust(msgspec.Struct, frozen=True, kw_only=True):
    """The issuer whose tokens are accepted, and the audience that they must name."""

    issuer: str
    audience: str


class VerifiedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A valid token: its account as NAMESPACE/NAME, and its expiry, in seconds since the epoch."""

    account: str
    expires_s: float


def looks_like_token(credential: bytes) -> bool:
    """Return whether this has the form of a token: three parts (RFC 7515, section 7.1)."""
    return credential.count(b".") == 2


class TokenCache:
    """The `size` most recently used valid tokens by SHA-256, none past its expiry. Times are seconds since the epoch.

    Verifying a signature takes longer than the rest of a cache hit.
    """

    def __init__(self, *, size: int = TOKENS_MAX) -> None:
        self._tokens: LruTable[bytes, VerifiedToken] = LruTable(size)

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, digest: bytes, *, now_s: float) -> VerifiedToken | None:
        """Return the token with this digest if it is cached and has not expired."""
        token = self._tokens.get(digest)
        if token is not None and now_s >= token.expires_s:
            self._tokens.pop(digest)
            return None
        return token

    def put(self, digest: bytes, token: VerifiedToken, *, now_s: float) -> None:
        """Store a token that was just verified, unless it is valid only because of the leeway."""
        if now_s < token.expires_s:
            self._tokens.put(digest, token)

    def clear(self) -> None:
        """Drop all tokens."""
        self._tokens.clear()
