"""Tokens that were found good, by their SHA-256: checking a signature takes longer than all the rest of a hit."""

from collections import OrderedDict

from service.callers.token import Token

TOKENS_MAX = 10_000


class TokenCache:
    """The tokens used last, at most `size`; none longer than it is good. Times are seconds since the epoch."""

    def __init__(self, *, size: int = TOKENS_MAX) -> None:
        self._size = size
        self._tokens: OrderedDict[bytes, Token] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def get(self, digest: bytes, *, now_s: float) -> Token | None:
        """The token with this digest, if it is known and has not ended."""
        token = self._tokens.get(digest)
        if token is None:
            return None
        if now_s >= token.ends_s:
            del self._tokens[digest]
            return None
        self._tokens.move_to_end(digest)
        return token

    def put(self, digest: bytes, token: Token, *, now_s: float) -> None:
        """Remember a token that was just checked; one that lives by the leeway alone is not."""
        if now_s < token.ends_s:
            self._tokens[digest] = token
            if len(self._tokens) > self._size:
                self._tokens.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._tokens.clear()
