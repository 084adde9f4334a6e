"""Authenticate a request by the key or token of its `Authorization` field, against the current table of callers."""

import hashlib
import hmac
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import structlog

from service.callers.table import NO_KEY, CallerTable
from service.callers.tokens import TokenCache, TokenTrust, VerifiedToken, looks_like_token
from service.model.callers import Authenticated, Caller
from service.model.errors import KeysUnavailable, NotAllowed, Unauthenticated

if TYPE_CHECKING:  # checking signatures takes a tenth of a second to import, and few deployments have an issuer
    from service.callers.issuer import TokenIssuer

CREDENTIAL_MAX = 8192

_SCHEME = b"bearer "
_B64TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{1,%d}=*" % CREDENTIAL_MAX)
_AUTHORIZATION_MAX = CREDENTIAL_MAX + 64

log = structlog.get_logger("taskgate.callers")


class Authenticator:
    """Implements the HTTP layer's `Callers`. `clock` is the wall clock, in seconds since the epoch.

    A key is looked up by its digest. The timing of the lookup may reveal something about digests, which can't be chosen
    without inverting SHA-256, but nothing about keys. A missing, malformed or expired key takes the same path as a
    wrong one.
    """

    def __init__(
        self, table: CallerTable, *, issuer: "TokenIssuer | None", clock: Callable[[], float] = time.time
    ) -> None:
        self.generation = 0
        self._watches: dict[object, Callable[[], None]] = {}
        self._table = table
        self._issuer = issuer
        self._clock = clock
        self._tokens = TokenCache()

    def replace(self, table: CallerTable, *, issuer: "TokenIssuer | Literal['same'] | None" = "same") -> None:
        """Switch to another table, and to another issuer's keys if given, in one step.

        Drop cached tokens that were verified with other keys, or issued for another issuer or audience.
        """
        if table.trust != self._table.trust or issuer != "same":
            self._tokens.clear()
        self._table = table
        if issuer != "same":
            self._issuer = issuer
        self._changed()

    def invalidate(self) -> None:
        """Drop all cached tokens: the issuer has removed a key."""
        self._tokens.clear()
        self._changed()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change of callers' permissions, until the returned function is called."""
        watch = object()
        self._watches[watch] = changed
        return lambda: self._watches.pop(watch, None) and None

    def authenticate_cached(self, authorization: bytes | None) -> Authenticated | None:
        """Return the caller that owns this credential, if that is known without verifying anything."""
        table = self._table
        if table.anonymous is not None:
            return Authenticated(caller=table.anonymous)
        credential = bearer_of(authorization)
        return self._known(table, hashlib.sha256(credential).digest(), now_s=self._clock()) if credential else None

    def identify(self, authorization: bytes | None) -> Caller:
        """Return the caller that owns this credential.

        Raise Unauthenticated, NotAllowed for a valid token that belongs to no caller, KeysUnavailable, and
        SigningKeyUnknown.
        """
        table = self._table
        if table.anonymous is not None:
            return table.anonymous
        credential = bearer_of(authorization)
        digest = hashlib.sha256(credential).digest()
        now_s = self._clock()
        known = self._known(table, digest, now_s=now_s)
        if known is not None and credential:
            return known.caller
        if table.trust is None or not looks_like_token(credential):
            raise Unauthenticated(presented=bool(authorization))
        token = self._token(credential, digest, trust=table.trust, now_s=now_s)
        caller = table.accounts.get(token.account, table.unknown)
        if caller is None:
            raise NotAllowed("this service account is none of the callers")
        return caller

    def _changed(self) -> None:
        self.generation += 1
        for changed in tuple(self._watches.values()):
            changed()

    async def refresh(self) -> None:
        """Re-fetch the issuer's keys, unless that was done recently."""
        if self._issuer is not None:
            await self._issuer.refresh()

    def _known(self, table: CallerTable, digest: bytes, *, now_s: float) -> Authenticated | None:
        """Return the owner of the key with this digest, or of the cached token with this digest."""
        key = table.keys.get(digest, NO_KEY)
        if hmac.compare_digest(key.digest, digest) and now_s < key.until_s and key.caller is not None:
            return Authenticated(caller=key.caller, until_s=key.until_s)
        token = self._tokens.get(digest, now_s=now_s)
        caller = None if token is None else table.accounts.get(token.account, table.unknown)
        return None if token is None or caller is None else Authenticated(caller=caller, until_s=token.expires_s)

    def _token(self, credential: bytes, digest: bytes, *, trust: TokenTrust, now_s: float) -> VerifiedToken:
        issuer = self._issuer
        if issuer is None:
            raise KeysUnavailable
        token = self._tokens.get(digest, now_s=now_s)
        if token is None:
            if not is_credential(credential):
                raise Unauthenticated(presented=True)
            token = issuer.check(credential.decode(), trust=trust, now_s=now_s)
            self._tokens.put(digest, token, now_s=now_s)
            log.info("callers.token_checked", account=token.account)
        return token


def bearer_of(authorization: bytes | None) -> bytes:
    """Return the credential of `Authorization: Bearer CREDENTIAL` (RFC 6750, section 2.1); empty if there is none.

    The scheme may be in any case (RFC 9110, section 11.1).
    """
    if authorization is None or len(authorization) > _AUTHORIZATION_MAX:
        return b""
    size = len(_SCHEME)
    if authorization[:size].lower() != _SCHEME:
        return b""
    return authorization[size:].strip(b" \t")


def is_credential(text: bytes) -> bool:
    """Return whether this is a well-formed credential. Those known by their digest need no such check."""
    return _B64TOKEN.fullmatch(text) is not None
