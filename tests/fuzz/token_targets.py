"""Targets: credentials, tokens and key sets."""

import base64
import json
import math
import random
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm

from service.callers.authenticator import CREDENTIAL_MAX, bearer_of, is_credential
from service.callers.signing_keys import KEYS_MAX, KID_MAX, InvalidJwks, read_jwks
from service.callers.token_verification import verify_token
from service.callers.tokens import TokenTrust
from service.model.errors import KeysUnavailable, Unauthenticated
from tests.fuzz.target import Target

NOW_S = 1_750_000_000
TRUST = TokenTrust(issuer="https://issuer.example", audience="taskgate")
_PRIVATE = ec.derive_private_key(random.Random(1).getrandbits(255), ec.SECP256R1())
_PUBLIC: dict[str, Any] = {**json.loads(ECAlgorithm.to_jwk(_PRIVATE.public_key())), "kid": "e"}
_KEYS = read_jwks(json.dumps({"keys": [_PUBLIC]}).encode())
_CLAIMS: dict[str, Any] = {
    "iss": TRUST.issuer,
    "aud": [TRUST.audience],
    "sub": "system:serviceaccount:shop:reports",
    "exp": NOW_S + 3600,
}


def signed(claims: object, *, kid: str = "e") -> str:
    """A token that the issuer signed, whatever it claims."""
    return jwt.PyJWS().encode(json.dumps(claims).encode(), _PRIVATE, algorithm="ES256", headers={"kid": kid})


GOOD = signed(_CLAIMS)


def check_authorization(data: bytes) -> None:
    """A credential is part of its field and within bounds; only what the issuer signed is accepted."""
    credential = bearer_of(data)
    assert credential in data
    if is_credential(credential):
        assert len(credential) <= CREDENTIAL_MAX + 64
        _check_token(credential.decode())


def check_token(data: bytes) -> None:
    """Tokens that are not signed by the issuer are rejected. The seed `~` stands for a valid token."""
    _check_token(data.replace(b"~", GOOD.encode()).decode("latin-1"))


def _check_token(token: str) -> None:
    try:
        found = verify_token(token, keys=_KEYS, trust=TRUST, now_s=NOW_S)
    except (Unauthenticated, KeysUnavailable):
        return
    # Different base64 of the same signature is no forgery; anything else about the token is.
    assert token.rpartition(".")[0] == GOOD.rpartition(".")[0], token
    assert (found.account, found.expires_s) == ("shop/reports", NOW_S + 3600)


def check_claims(data: bytes) -> None:
    """With claims as a faulty issuer would sign them, a token is valid only with correct ones, and expires."""
    token = jwt.PyJWS().encode(data, _PRIVATE, algorithm="ES256", headers={"kid": "e"})
    try:
        found = verify_token(token, keys=_KEYS, trust=TRUST, now_s=NOW_S)
    except Unauthenticated:
        return
    claims = json.loads(data)
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    assert (claims["iss"], TRUST.audience in audiences) == (TRUST.issuer, True)
    assert claims["sub"] == "system:serviceaccount:" + found.account.replace("/", ":", 1)
    assert math.isfinite(found.expires_s)
    assert found.expires_s + 30 > NOW_S


def check_header(data: bytes) -> None:
    """A forged header over claims and signature of a valid token is never accepted, unless it is the same."""
    segment = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    _check_token(f"{segment}.{GOOD.partition('.')[2]}")


def check_jwks(data: bytes) -> None:
    """Keys that can be used, or InvalidJwks. `KEY` stands for a good one's members."""
    members = json.dumps({name: value for name, value in _PUBLIC.items() if name != "kid"})[1:-1].encode()
    try:
        keys = read_jwks(data.replace(b"KEY", members))
    except InvalidJwks:
        return
    assert 0 < len(keys) <= KEYS_MAX
    for kid, key in keys.items():
        assert 0 < len(kid) <= KID_MAX
        assert key.algorithm == ("RS256" if isinstance(key.public, RSAPublicKey) else "ES256")
        assert not isinstance(key.public, RSAPublicKey) or 2048 <= key.public.key_size <= 8192


_JSON = (b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"1e999", b"-1", b"1", b"[" * 600, b"\\ud800")

TARGETS = (
    Target(
        name="authorization",
        check=check_authorization,
        pieces=(b"Bearer ", b"bearer\t", b"Basic ", b".", b"=", b" ", GOOD.encode(), b"~"),
    ),
    Target(name="token", check=check_token, pieces=(b"~", b".", b"=", b"e30", b"eyJhbGciOiJub25lIn0", b"-_", b"\xff")),
    Target(
        name="claims",
        check=check_claims,
        pieces=(
            *_JSON,
            *(json.dumps({name: value})[1:-1].encode() for name, value in _CLAIMS.items()),
            b'"exp":',
            b'"nbf":',
        ),
    ),
    Target(
        name="token_header",
        check=check_header,
        pieces=(*_JSON, b'"alg":"ES256"', b'"kid":"e"', b'"crit":["exp"]', b'"alg":"none"', b'"b64":false', b'"jwk":'),
    ),
    Target(
        name="jwks",
        check=check_jwks,
        pieces=(
            *_JSON,
            b'{"keys":[',
            b"KEY",
            b'"kid":"a"',
            b'"kty":"RSA"',
            b'"e":"AQAB"',
            b'"n":"',
            b'"use":"enc"',
            b"A" * 342,
        ),
    ),
)
