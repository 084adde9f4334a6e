"""Who a request comes from, by key or by token, as the table stands at that moment."""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import structlog

from service.callers.bearer import bearer_of, is_credential
from service.callers.table import NO_KEY, Table
from service.callers.token import Token, Trust, looks_like_token
from service.callers.token_cache import TokenCache
from service.model.callers import Authenticated, Caller
from service.model.errors import KeysUnavailable, NotAllowed, Unauthenticated

if TYPE_CHECKING:  # what checks signatures takes a tenth of a second to import, and few have an issuer
    from service.callers.issuer import Issuer

log = structlog.get_logger("taskgate.callers")


class Authenticator:
    """Implements the `Callers` of the HTTP side. `clock` is the wall clock, in seconds since the epoch.

    A key is looked up by its digest: how long that takes may tell something of digests, which nobody can steer without
    inverting SHA-256, and nothing of keys. A missing, malformed or ended key takes the same way as a wrong one.
    """

    def __init__(self, table: Table, *, issuer: "Issuer | None", clock: Callable[[], float] = time.time) -> None:
        self.generation = 0
        self._watches: dict[object, Callable[[], None]] = {}
        self._table = table
        self._issuer = issuer
        self._clock = clock
        self._remembered = TokenCache()

    def replace(self, table: Table, *, issuer: "Issuer | Literal['same'] | None" = "same") -> None:
        """Go by another table, and by the keys of another issuer where one is given, in one step.

        Tokens that were found good by other keys, or meant for another issuer or audience, are forgotten.
        """
        if table.trust != self._table.trust or issuer != "same":
            self._remembered.clear()
        self._table = table
        if issuer != "same":
            self._issuer = issuer
        self._changed()

    def invalidate(self) -> None:
        """Forget which tokens were found good: the issuer has dropped a key."""
        self._remembered.clear()
        self._changed()

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call `changed` after each change of what callers may do, until the returned function is called."""
        watch = object()
        self._watches[watch] = changed
        return lambda: self._watches.pop(watch, None) and None

    def authenticate_cached(self, authorization: bytes | None) -> Authenticated | None:
        """Return the caller whose credential this is, if that is known without a check."""
        table = self._table
        if table.anonymous is not None:
            return Authenticated(caller=table.anonymous)
        credential = bearer_of(authorization)
        return self._known(table, hashlib.sha256(credential).digest(), now_s=self._clock()) if credential else None

    def identify(self, authorization: bytes | None) -> Caller:
        """Return the caller whose credential this is.

        Raises Unauthenticated, NotAllowed for a good token of nobody's, KeysUnavailable and SigningKeyUnknown.
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
        """Ask for the issuer's keys anew, unless that was done lately."""
        if self._issuer is not None:
            await self._issuer.refresh()

    def _known(self, table: Table, digest: bytes, *, now_s: float) -> Authenticated | None:
        """Return whose key has this digest, or whose token that was found good before."""
        key = table.keys.get(digest, NO_KEY)
        if hmac.compare_digest(key.digest, digest) and now_s < key.until_s and key.caller is not None:
            return Authenticated(caller=key.caller, until_s=key.until_s)
        token = self._remembered.get(digest, now_s=now_s)
        caller = None if token is None else table.accounts.get(token.account, table.unknown)
        return None if token is None or caller is None else Authenticated(caller=caller, until_s=token.ends_s)

    def _token(self, credential: bytes, digest: bytes, *, trust: Trust, now_s: float) -> Token:
        issuer = self._issuer
        if issuer is None:
            raise KeysUnavailable
        token = self._remembered.get(digest, now_s=now_s)
        if token is None:
            if not is_credential(credential):
                raise Unauthenticated(presented=True)
            token = issuer.check(credential.decode(), trust=trust, now_s=now_s)
            self._remembered.put(digest, token, now_s=now_s)
            log.info("callers.token_checked", account=token.account)
        return token
