"""Service account tokens: forged and valid ones, and those that are verified already."""

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from jwt.algorithms import RSAAlgorithm

from service.callers.authenticator import Authenticator
from service.callers.issuer import TokenIssuer
from service.callers.table import UNKNOWN, table_of
from service.callers.tokens import TokenCache, VerifiedToken
from service.model.errors import KeysUnavailable, NotAllowed, SigningKeyUnknown, Unauthenticated
from service.settings import PolicySettings
from tests.unit.callers.tables import NOW_S, Clock, Held, bearer, keys_only, settings, with_issuer

ATTACKS: dict[str, Callable[[Any], str]] = {
    "truncated": lambda mint: mint.token()[:-10],
    "without its signature": lambda mint: mint.token().rpartition(".")[0] + ".",
    "two parts": lambda mint: mint.token().rpartition(".")[0],
    "changed claims": lambda mint: mint.with_claims_of(
        mint.token(), mint.token(sub="system:serviceaccount:shop:admin")
    ),
    "other audience": lambda mint: mint.token(aud=["other"]),
    "no audience": lambda mint: mint.token(aud=None),
    "an audience that begins like ours": lambda mint: mint.token(aud=["taskgate.example", "taskgat"]),
    "other issuer": lambda mint: mint.token(iss="https://issuer.example/"),
    "no issuer": lambda mint: mint.token(iss=None),
    "expired": lambda mint: mint.token(exp=NOW_S - 31),
    "no end": lambda mint: mint.token(exp=None),
    "an end that is a text": lambda mint: mint.token(exp=None, x=1, **{"exp ": NOW_S + 9}),
    "not yet valid": lambda mint: mint.token(nbf=NOW_S + 31),
    "a stranger's key": lambda mint: mint.token(key=mint.other_rsa),
    "alg none": lambda mint: mint.forged({"alg": "none", "kid": "r"}),
    "alg None": lambda mint: mint.forged({"alg": "None", "kid": "r"}),
    "no alg": lambda mint: mint.forged({"kid": "r"}),
    "HS256 with the public key": lambda mint: mint.forged({"alg": "HS256", "kid": "r"}, secret=mint.public_pem()),
    "RS256 by HMAC": lambda mint: mint.forged({"alg": "RS256", "kid": "r"}, secret=mint.public_pem()),
    "ES256 with an RSA key's kid": lambda mint: mint.token(alg="ES256", kid="r"),
    "RS256 with an EC key's kid": lambda mint: mint.token(alg="RS256", kid="e"),
    "RS512": lambda mint: mint.token(alg="RS512"),
    "PS256": lambda mint: mint.token(alg="PS256"),
    "no kid": lambda mint: mint.token(kid=None),
    "a kid that is a number": lambda mint: mint.forged({"alg": "RS256", "kid": 1}),
    "a kid without end": lambda mint: mint.token(kid="k" * 300),
    "crit": lambda mint: mint.forged({"alg": "RS256", "kid": "r", "crit": ["b64"], "b64": False}),
    "crit, well signed": lambda mint: mint.token(crit=["exp"]),
    "crit of nothing, well signed": lambda mint: mint.token(crit=[]),
    "its own key": lambda mint: mint.forged(
        {"alg": "RS256", "kid": "r", "jwk": json.loads(mint.jwks())["keys"][0], "jku": "http://evil.example"}
    ),
    "no service account": lambda mint: mint.token(sub="system:node:shop"),
    "a subject with more": lambda mint: mint.token(sub="system:serviceaccount:shop:reports:admin"),
    "no subject": lambda mint: mint.token(sub=None),
    "dots alone": lambda mint: "..",
    "nesting": lambda mint: base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.e30",
    "a header that is no object": lambda mint: "W10.e30.e30",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_forged_tokens_are_rejected_alike(mint: Any, authenticator: Authenticator, attack: str) -> None:
    """Each attack is rejected as unknown, in a way that reveals nothing; valid tokens are accepted before and after."""
    assert authenticator.identify(bearer(mint.token())).name == "reports"
    with pytest.raises(Unauthenticated) as caught:
        authenticator.identify(bearer(ATTACKS[attack](mint)))
    assert (caught.value.presented, str(caught.value)) == (True, "")
    assert type(caught.value) is Unauthenticated
    assert authenticator.identify(bearer(mint.token())).name == "reports"


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"alg": "ES256", "kid": "e"},
        {"aud": "taskgate"},
        {"aud": ["other", "taskgate"]},
        {"exp": NOW_S - 29},
        {"nbf": NOW_S + 29},
        {"nbf": None},
        {"exp": NOW_S + 0.5},
    ],
)
def test_valid_tokens_are_accepted(mint: Any, authenticator: Authenticator, changed: dict[str, object]) -> None:
    """RS256 and ES256, our audience alone or among others, half a minute of leeway on both ends."""
    assert authenticator.identify(bearer(mint.token(**changed))).name == "reports"


def test_a_cached_token_ends_with_its_exp(mint: Any, authenticator: Authenticator, clock: Clock) -> None:
    """A token is verified once; from its exp on it is verified each time, and after the leeway it is refused."""
    token = bearer(mint.token(exp=NOW_S + 10))
    authenticator.identify(token)
    assert authenticator.authenticate_cached(token) is not None
    clock.now_s = NOW_S + 10
    assert authenticator.identify(token).name == "reports"
    assert authenticator.authenticate_cached(token) is None
    clock.now_s = NOW_S + 41
    with pytest.raises(Unauthenticated):
        authenticator.identify(token)


def test_cached_tokens_are_bounded() -> None:
    """The least recently used is evicted first."""
    remembered = TokenCache(size=2)
    token = VerifiedToken(account="a/b", expires_s=10)
    for digest in (b"1", b"2"):
        remembered.put(digest, token, now_s=0)
    assert remembered.get(b"1", now_s=9) is token
    remembered.put(b"3", token, now_s=0)
    assert [remembered.get(digest, now_s=9) is None for digest in (b"1", b"2", b"3")] == [False, True, False]


async def test_a_dropped_signing_key_invalidates_cached_tokens(mint: Any, clock: Clock) -> None:
    """When the issuer has dropped a signing key, tokens signed with it are refused at once, cached or not."""
    source = Held(mint.jwks())
    authenticator, issuer = await with_issuer(source, clock)
    token = bearer(mint.token())
    authenticator.identify(token)
    source.raw = mint.jwks(without="r")
    await issuer.refresh()
    with pytest.raises(SigningKeyUnknown):
        authenticator.identify(token)


async def test_a_replaced_signing_key_invalidates_cached_tokens(mint: Any, clock: Clock) -> None:
    """Another key under the same name is a different key: tokens signed by the old one are no longer valid."""
    source = Held(mint.jwks())
    authenticator, issuer = await with_issuer(source, clock)
    token = bearer(mint.token())
    authenticator.identify(token)
    other = {**json.loads(RSAAlgorithm.to_jwk(mint.other_rsa.public_key())), "kid": "r", "alg": "RS256", "use": "sig"}
    source.raw = json.dumps({"keys": [other, *json.loads(mint.jwks(without="r"))["keys"]]}).encode()
    await issuer.refresh()
    with pytest.raises(Unauthenticated):
        authenticator.identify(token)
    assert authenticator.identify(bearer(mint.token(key=mint.other_rsa))).name == "reports"


def test_without_signing_keys_only_tokens_are_unavailable(mint: Any, clock: Clock) -> None:
    """While no signing key is known, tokens get KeysUnavailable; what can't be a token is rejected, and keys are
    accepted."""
    authenticator = Authenticator(table_of(settings()), issuer=TokenIssuer(Held(b""), refresh_s=300), clock=clock)
    with pytest.raises(KeysUnavailable):
        authenticator.identify(bearer(mint.token()))
    for credential in ("a.b.c", "wrong", mint.forged({"alg": "none", "kid": "r"})):
        with pytest.raises(Unauthenticated):
            authenticator.identify(bearer(credential))
    assert authenticator.identify(b"Bearer key").name == "reports"


def test_tokens_are_rejected_if_not_configured(mint: Any) -> None:
    """Without the section a token is like any wrong key."""
    with pytest.raises(Unauthenticated):
        keys_only().identify(bearer(mint.token()))


def test_unnamed_accounts_are_refused_or_share_a_caller(mint: Any, authenticator: Authenticator) -> None:
    """A valid token of an unnamed account is refused, or all such accounts are one caller."""
    stranger = bearer(mint.token(sub="system:serviceaccount:shop:other"))
    with pytest.raises(NotAllowed):
        authenticator.identify(stranger)
    known = settings().service_accounts
    assert known is not None
    open_to_all = msgspec.structs.replace(known, unknown=PolicySettings(apps=("news",), weight=0.1))
    authenticator.replace(table_of(settings(service_accounts=open_to_all)))
    caller = authenticator.identify(stranger)
    assert (caller.name, caller.apps, caller.weight) == (UNKNOWN, frozenset(("news",)), 0.1)
    assert authenticator.identify(bearer(mint.token())).name == "reports"
