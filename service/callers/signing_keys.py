"""An issuer's signing keys, read from its JWKS (RFC 7517)."""

from collections.abc import Mapping

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

JWKS_MAX_BYTES = 1024 * 1024
KEYS_MAX = 1000
KID_MAX = 256
RSA_BITS = range(2048, 8193)

SigningKeys = Mapping[str, "SigningKey"]
"""An issuer's keys by `kid`."""


class PublishedKeys(dict[str, "SigningKey"]):
    """The keys of one document. `left_out` counts those beyond KEYS_MAX: tokens signed with them are rejected."""

    left_out = 0


class InvalidJwks(ValueError):
    """The document has no usable key."""


class SigningKey(msgspec.Struct, frozen=True, kw_only=True):
    """One public key for one algorithm. `thumbprint` distinguishes keys under the same `kid`."""

    algorithm: str
    public: RSAPublicKey | EllipticCurvePublicKey
    thumbprint: tuple[str, ...]


class _Jwk(msgspec.Struct, frozen=True):
    """The members of a JWK that are read; private parts are not among them."""

    kty: str
    kid: str = ""
    use: str = "sig"
    alg: str = ""
    n: str = ""
    e: str = ""
    crv: str = ""
    x: str = ""
    y: str = ""


class _Jwks(msgspec.Struct, frozen=True):
    keys: list[msgspec.Raw]


def read_jwks(raw: bytes) -> PublishedKeys:
    """Return the RS256 and ES256 keys; skip others, and keep the first of each `kid`. Raise InvalidJwks."""
    try:
        entries = msgspec.json.decode(raw, type=_Jwks).keys
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise InvalidJwks("the answer is no JWKS") from exc
    keys = PublishedKeys()
    for count, entry in enumerate(entries):
        if len(keys) >= KEYS_MAX:
            keys.left_out = len(entries) - count
            break
        try:
            jwk = msgspec.json.decode(entry, type=_Jwk)
            key = _key_of(jwk)
        except (msgspec.MsgspecError, jwt.PyJWTError, ValueError, RecursionError):
            continue
        if key is not None and jwk.use == "sig" and 0 < len(jwk.kid) <= KID_MAX:
            keys.setdefault(jwk.kid, key)
    if not keys:
        raise InvalidJwks("the JWKS holds no key for RS256 or ES256")
    return keys


def _key_of(jwk: _Jwk) -> SigningKey | None:
    if jwk.kty == "RSA" and jwk.alg in ("", "RS256"):
        rsa = RSAAlgorithm.from_jwk({"kty": "RSA", "n": jwk.n, "e": jwk.e})
        if isinstance(rsa, RSAPublicKey) and rsa.key_size in RSA_BITS:
            return SigningKey(algorithm="RS256", public=rsa, thumbprint=("RSA", jwk.n, jwk.e))
    if jwk.kty == "EC" and jwk.crv == "P-256" and jwk.alg in ("", "ES256"):
        point = ECAlgorithm.from_jwk({"kty": "EC", "crv": "P-256", "x": jwk.x, "y": jwk.y})
        if isinstance(point, EllipticCurvePublicKey):
            return SigningKey(algorithm="ES256", public=point, thumbprint=("EC", jwk.x, jwk.y))
    return None
