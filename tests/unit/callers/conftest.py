"""An issuer of tokens: real keys, its JWKS, and tokens of every kind, valid and forged."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from service.callers.authenticator import Authenticator
from service.callers.issuer import TokenIssuer
from service.callers.table import table_of
from tests.unit.callers.tables import NOW_S, Clock, Held, settings

ISSUER = "https://issuer.example"
AUDIENCE = "taskgate"
SUBJECT = "system:serviceaccount:shop:reports"


class Mint:
    """Signs with an RSA key (kid r), an EC key (kid e), and unpublished keys (strangers)."""

    def __init__(self) -> None:
        self.rsa = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        self.ec = ec.generate_private_key(ec.SECP256R1())
        self.other_rsa = rsa.generate_private_key(public_exponent=65_537, key_size=2048)

    def jwks(self, *, more: tuple[dict[str, Any], ...] = (), without: str = "") -> bytes:
        """The document that the issuer publishes."""
        keys = [
            {**json.loads(RSAAlgorithm.to_jwk(self.rsa.public_key())), "kid": "r", "alg": "RS256", "use": "sig"},
            {**json.loads(ECAlgorithm.to_jwk(self.ec.public_key())), "kid": "e", "use": "sig"},
            *more,
        ]
        return json.dumps({"keys": [key for key in keys if key["kid"] != without]}).encode()

    def claims(self, **changed: object) -> dict[str, object]:
        """The claims of a projected token, an hour long; None leaves one out."""
        claims = {"iss": ISSUER, "aud": [AUDIENCE], "sub": SUBJECT, "nbf": NOW_S, "iat": NOW_S, "exp": NOW_S + 3600}
        return {name: value for name, value in {**claims, **changed}.items() if value is not None}

    def token(
        self, *, kid: str | None = "r", key: Any = None, alg: str = "RS256", crit: Any = None, **changed: object
    ) -> str:
        """A token, signed by the key published under its kid unless another is given."""
        headers = {name: value for name, value in (("kid", kid), ("crit", crit)) if value is not None}
        signer = key or (self.ec if alg == "ES256" else self.rsa)
        return jwt.encode(self.claims(**changed), signer, algorithm=alg, headers=headers)

    def forged(self, header: dict[str, object], *, secret: bytes | None = None, **changed: object) -> str:
        """A token with any header: signed by HMAC with `secret`, or not at all."""
        signed = f"{_segment(header)}.{_segment(self.claims(**changed))}"
        signature = b"" if secret is None else hmac.new(secret, signed.encode(), hashlib.sha256).digest()
        return f"{signed}.{_encoded(signature)}"

    def with_claims_of(self, token: str, other: str) -> str:
        """A token whose claims were swapped for another's."""
        header, _, signature = token.split(".")
        return f"{header}.{other.split('.')[1]}.{signature}"

    def public_pem(self) -> bytes:
        """The public half of the RSA key."""
        return self.rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="session")
def mint() -> Mint:
    """One for the session: RSA keys take a while to make."""
    return Mint()


def _segment(value: object) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def authenticator(mint: Any, clock: Clock) -> Authenticator:
    """An authenticator with the issuer's keys."""
    issuer = TokenIssuer(Held(mint.jwks()), refresh_s=300)
    await issuer.refresh()
    return Authenticator(table_of(settings()), issuer=issuer, clock=clock)
