"""Verified tokens by SHA-256: verifying a signature takes longer than everything else in a cache hit."""

from service.cache.lru import LruTable
from service.callers.token import Token

TOKENS_MAX = 10_000


class TokenCache:
    """The `size` most recently used tokens, none kept past its expiry. Times are seconds since the epoch."""

    def __init__(self, *, size: int = TOKENS_MAX) -> None:
        self._tokens: LruTable[bytes, Token] = LruTable(size)

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, digest: bytes, *, now_s: float) -> Token | None:
        """Return the token with this digest if it is cached and has not expired."""
        token = self._tokens.get(digest)
        if token is not None and now_s >= token.ends_s:
            self._tokens.pop(digest)
            return None
        return token

    def put(self, digest: bytes, token: Token, *, now_s: float) -> None:
        """Store a token that was just verified, unless it is valid only because of the leeway."""
        if now_s < token.ends_s:
            self._tokens.put(digest, token)

    def clear(self) -> None:
        """Drop all tokens."""
        self._tokens.clear()
