"""Callers known by a key: `Authorization: Bearer KEY` (RFC 6750), of which only the SHA-256 is kept."""

import hashlib
import hmac
import re
from collections.abc import Mapping

from service.model.callers import Caller
from service.model.errors import Unauthenticated
from service.settings import CallerSettings

# b64token of RFC 6750, section 2.1; the scheme in any case (RFC 9110, section 11.1).
_BEARER = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]{1,512}=*)[ \t]*")
_AUTHORIZATION_MAX = 1024
_NOBODY = hashlib.sha256(b"").digest()


class KeyCallers:
    """Implements `Callers`; the bounds are for callers whose own settings name none. ValueError: two share a key.

    A key is looked up by its digest: how long that takes may tell something of digests, which nobody can steer without
    inverting SHA-256, and nothing of keys. A missing or malformed credential takes the same way as a wrong one.
    """

    def __init__(self, callers: Mapping[str, CallerSettings], *, waiting_max: int, wait_max_s: float) -> None:
        self._by_digest: dict[bytes, tuple[bytes, Caller]] = {}
        for name, settings in callers.items():
            caller = Caller(
                name=name,
                apps=frozenset(settings.apps),
                weight=settings.weight,
                waiting_max=waiting_max if settings.waiting_max is None else settings.waiting_max,
                wait_max_s=wait_max_s if settings.wait_max_s is None else settings.wait_max_s,
                may_force=settings.may_force,
                operator=settings.operator,
            )
            for key in settings.keys:
                digest = bytes.fromhex(key)
                known = self._by_digest.get(digest)
                if known is not None and known[1].name != name:
                    raise ValueError(f"the callers {known[1].name} and {name} share a key")
                self._by_digest[digest] = (digest, caller)

    def identify(self, authorization: str | None) -> Caller:
        """The caller whose key this is. Raises Unauthenticated."""
        key = ""
        if authorization is not None and len(authorization) <= _AUTHORIZATION_MAX:
            credential = _BEARER.fullmatch(authorization)
            key = credential.group(1) if credential else ""
        digest = hashlib.sha256(key.encode()).digest()
        known, caller = self._by_digest.get(digest, (_NOBODY, None))
        if not hmac.compare_digest(known, digest) or caller is None or not key:
            raise Unauthenticated
        return caller
