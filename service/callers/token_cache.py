"""Tokens that were found good, by their SHA-256: checking a signature takes longer than all the rest of a hit."""

from service.cache.lru import LruTable
from service.callers.token import Token

TOKENS_MAX = 10_000


class TokenCache:
    """The tokens used last, at most `size`; none longer than it is good. Times are seconds since the epoch."""

    def __init__(self, *, size: int = TOKENS_MAX) -> None:
        self._tokens: LruTable[bytes, Token] = LruTable(size)

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, digest: bytes, *, now_s: float) -> Token | None:
        """Return the token with this digest if it is known and has not ended."""
        token = self._tokens.get(digest)
        if token is not None and now_s >= token.ends_s:
            self._tokens.pop(digest)
            return None
        return token

    def put(self, digest: bytes, token: Token, *, now_s: float) -> None:
        """Remember a token that was just checked, unless it is good by the leeway alone."""
        if now_s < token.ends_s:
            self._tokens.put(digest, token)

    def clear(self) -> None:
        """Forget all."""
        self._tokens.clear()
