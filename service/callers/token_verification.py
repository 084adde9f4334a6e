"""Verify a token against keys, issuer, audience and time. No I/O.

PyJWT checks only the signature. The claims are checked here, so that the time is a parameter.
"""

import re
from base64 import urlsafe_b64decode

import jwt
import msgspec

from service.callers.signing_keys import KID_MAX, SigningKeys
from service.callers.tokens import TokenTrust, VerifiedToken
from service.model.errors import KeysUnavailable, SigningKeyUnknown, Unauthenticated

LEEWAY_S = 30.0
ALGORITHMS = ("RS256", "ES256")

_JWS = jwt.PyJWS(algorithms=list(ALGORITHMS))
_SUBJECT = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):([a-z0-9.-]{1,253})")


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: str
    crit: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Claims(msgspec.Struct, frozen=True):
    iss: str
    aud: str | list[str]
    sub: str
    exp: float
    nbf: float | None = None


def verify_token(token: str, *, keys: SigningKeys, trust: TokenTrust, now_s: float) -> VerifiedToken:
    """Return the token if it is valid. Raise Unauthenticated, SigningKeyUnknown, and KeysUnavailable without `keys`.

    The key determines the algorithm, never the token; `crit`, which would demand extensions, is rejected.
    """
    header = _header_of(token)
    if header is None or header.alg not in ALGORITHMS or header.crit is not msgspec.UNSET or len(header.kid) > KID_MAX:
        raise Unauthenticated(presented=True)
    if not keys:
        raise KeysUnavailable
    key = keys.get(header.kid)
    if key is None:
        raise SigningKeyUnknown(presented=True)
    try:
        payload = _JWS.decode(token, key.public, algorithms=[key.algorithm])
        claims = msgspec.json.decode(payload.decode(), type=_Claims)  # as text: bytes would be checked in part
    except (jwt.PyJWTError, msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise Unauthenticated(presented=True) from exc
    return _checked_claims(claims, trust=trust, now_s=now_s)


def _checked_claims(claims: _Claims, *, trust: TokenTrust, now_s: float) -> VerifiedToken:
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    subject = _SUBJECT.fullmatch(claims.sub)
    is_timely = now_s < claims.exp + LEEWAY_S and (claims.nbf is None or claims.nbf - LEEWAY_S <= now_s)
    if claims.iss != trust.issuer or trust.audience not in audiences or not is_timely or subject is None:
        raise Unauthenticated(presented=True)
    return VerifiedToken(account=f"{subject[1]}/{subject[2]}", expires_s=claims.exp)


def _header_of(token: str) -> _Header | None:
    segment = token.partition(".")[0]
    try:
        return msgspec.json.decode(urlsafe_b64decode(segment + "=" * (-len(segment) % 4)), type=_Header)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
