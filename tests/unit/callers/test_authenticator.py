"""Authentication: keys that expire, tokens valid and forged, and the effects of changes of the table."""

import base64
import hashlib
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from jwt.algorithms import RSAAlgorithm

from service.callers.authenticator import Authenticator
from service.callers.issuer import Issuer
from service.callers.table import UNKNOWN, table_of
from service.callers.token import Token
from service.callers.token_cache import TokenCache
from service.model.callers import Authenticated
from service.model.errors import KeysUnavailable, NotAllowed, SigningKeyUnknown, Unauthenticated
from service.settings import (
    AppSettings,
    BudgetSettings,
    CallerSettings,
    KeySettings,
    PolicySettings,
    RedisSettings,
    ServiceAccountSettings,
    Settings,
)

NOW_S = 1_750_000_000  # as in conftest.py
TODAY = "2025-06-15T15:06:40Z"
EMPTY = hashlib.sha256(b"").hexdigest()


def hashed(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def settings(**changed: Any) -> Settings:
    """One caller with a key and an account."""
    app = AppSettings(sdkappid=1, admin="a", secret_env="S")
    values: dict[str, Any] = {
        "apps": {"shop": app, "news": app},
        "callers": {
            "reports": CallerSettings(keys=(hashed("key"),), service_accounts=("shop/reports",), apps=("shop",))
        },
        "service_accounts": ServiceAccountSettings(
            issuer="https://issuer.example", audience="taskgate", jwks_file="jwks.json"
        ),
        "redis": RedisSettings(url="redis://127.0.0.1"),
    }
    return Settings(**(values | changed))


class Held:
    """A source that holds a document."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    async def read(self) -> bytes:
        return self.raw


class Clock:
    """Returns the time it was set to."""

    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def authenticator(mint: Any, clock: Clock) -> Authenticator:
    """With the issuer's keys."""
    issuer = Issuer(Held(mint.jwks()), refresh_s=300)
    await issuer.refresh()
    return Authenticator(table_of(settings()), issuer=issuer, clock=clock)


def bearer(credential: str) -> bytes:
    """The field that carries the credential."""
    return f"Bearer {credential}".encode()


def keys_only(**callers: CallerSettings) -> Authenticator:
    table = table_of(settings(callers=callers, service_accounts=None))
    return Authenticator(table, issuer=None, clock=lambda: float(NOW_S))


def test_callers_share_nothing() -> None:
    """Two callers can't share a key or an account."""
    both = CallerSettings(keys=(hashed("key"),), apps=("shop",))
    with pytest.raises(ValueError, match="a and b share a key"):
        table_of(settings(callers={"a": both, "b": both}))
    same = CallerSettings(service_accounts=("x/y",), apps=("shop",))
    with pytest.raises(ValueError, match="a and b share a service account"):
        table_of(settings(callers={"a": same, "b": same}))


def test_what_a_caller_may() -> None:
    """A caller has what its settings say, the budget's bounds where they are silent, and operators know all apps."""
    plain = CallerSettings(keys=(hashed("a"),), apps=("shop",))
    rich = CallerSettings(
        keys=(hashed("b"),), apps=("news",), weight=2.5, waiting_max=3, wait_max_s=4.0, may_force=False, operator=True
    )
    table = table_of(settings(callers={"a": plain, "b": rich}, budget=BudgetSettings(waiting_max=7, wait_max_s=20.0)))
    authenticator = Authenticator(table, issuer=None, clock=lambda: float(NOW_S))
    a, b = authenticator.identify(b"Bearer a"), authenticator.identify(b"bearer  b ")
    assert (a.name, a.apps, a.weight, a.waiting_max, a.wait_max_s) == ("a", frozenset(("shop",)), 1.0, 7, 20.0)
    assert (a.may_force, a.operator, a.knows) == (True, False, frozenset())
    assert (b.weight, b.waiting_max, b.wait_max_s, b.may_force, b.operator) == (2.5, 3, 4.0, False, True)
    assert b.knows == frozenset(("shop", "news"))


@pytest.mark.parametrize(
    "authorization", [None, b"", b"Bearer", b"Bearer ", b"Bearer  ", b"Basic key", b"Bearer key\n", b"x"]
)
def test_an_empty_key_is_nobodys(authorization: bytes | None) -> None:
    """A request without a key is unauthenticated, even if the hash of the empty string is configured as a key."""
    authenticator = keys_only(a=CallerSettings(keys=(EMPTY,), apps=()))
    with pytest.raises(Unauthenticated) as caught:
        authenticator.identify(authorization)
    assert caught.value.presented is bool(authorization)


@pytest.mark.parametrize(
    ("until", "is_good"),
    [(None, True), ("2025-06-16", True), ("2025-06-15", False), ("2025-06-15T15:06:41Z", True), (TODAY, False)],
)
def test_a_key_is_good_until_its_end(until: str | None, is_good: bool) -> None:
    """Each of a caller's keys has its own expiry; from that instant on it is like an unknown one."""
    entries = (KeySettings(sha256=hashed("old"), until=until), hashed("new"))
    authenticator = keys_only(a=CallerSettings(keys=entries, apps=()))
    assert authenticator.identify(b"Bearer new").name == "a"
    if is_good:
        assert authenticator.identify(b"Bearer old").name == "a"
    else:
        with pytest.raises(Unauthenticated):
            authenticator.identify(b"Bearer old")


def test_wrong_missing_and_ended_keys_take_the_same_time() -> None:
    """Over many tries the medians for a wrong key, an expired one and none at all lie within a third."""
    many = {
        f"c{number}": CallerSettings(keys=(KeySettings(sha256=hashed(f"key{number}"), until="2020-01-01"),), apps=())
        for number in range(500)
    }
    authenticator = keys_only(**many)

    def took_s(authorization: bytes | None) -> float:
        begun = time.perf_counter()
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                authenticator.identify(authorization)
        return time.perf_counter() - begun

    tries = [(took_s(b"Bearer key250"), took_s(b"Bearer kex250"), took_s(None)) for _ in range(60)]
    medians = [statistics.median(times) for times in zip(*tries, strict=True)]
    assert max(medians) / min(medians) < 1.33, medians


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
def test_attacks_by_token(mint: Any, authenticator: Authenticator, attack: str) -> None:
    """Each is refused as unknown, in one way that reveals nothing; and good tokens are good before and after."""
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
def test_good_tokens(mint: Any, authenticator: Authenticator, changed: dict[str, object]) -> None:
    """RS256 and ES256, our audience alone or among others, half a minute of leeway on both ends."""
    assert authenticator.identify(bearer(mint.token(**changed))).name == "reports"


def test_a_remembered_token_ends_with_its_exp(mint: Any, authenticator: Authenticator, clock: Clock) -> None:
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


def test_what_is_remembered_is_bounded() -> None:
    """The least recently used goes first."""
    remembered = TokenCache(size=2)
    token = Token(account="a/b", ends_s=10)
    for digest in (b"1", b"2"):
        remembered.put(digest, token, now_s=0)
    assert remembered.get(b"1", now_s=9) is token
    remembered.put(b"3", token, now_s=0)
    assert [remembered.get(digest, now_s=9) is None for digest in (b"1", b"2", b"3")] == [False, True, False]


async def test_a_key_that_the_issuer_drops_takes_remembered_tokens_along(mint: Any, clock: Clock) -> None:
    """When the issuer has dropped a signing key, tokens signed with it are refused at once, cached or not."""
    source = Held(mint.jwks())
    ticks = iter((0.0, 0.0, 60.0, 60.0))
    issuer = Issuer(source, refresh_s=300, clock=lambda: next(ticks))
    await issuer.refresh()
    authenticator = Authenticator(table_of(settings()), issuer=issuer, clock=clock)
    issuer.on_drop = authenticator.invalidate
    token = bearer(mint.token())
    authenticator.identify(token)
    source.raw = mint.jwks(without="r")
    await issuer.refresh()
    with pytest.raises(SigningKeyUnknown):
        authenticator.identify(token)


async def test_a_key_replaced_under_its_kid_takes_remembered_tokens_along(mint: Any, clock: Clock) -> None:
    """Another key under the same name is a different key: tokens signed by the old one are no longer valid."""
    source, seconds = Held(mint.jwks()), itertools.count(step=60)
    issuer = Issuer(source, refresh_s=300, clock=lambda: float(next(seconds)))
    await issuer.refresh()
    authenticator = Authenticator(table_of(settings()), issuer=issuer, clock=clock)
    issuer.on_drop = authenticator.invalidate
    token = bearer(mint.token())
    authenticator.identify(token)
    other = {**json.loads(RSAAlgorithm.to_jwk(mint.other_rsa.public_key())), "kid": "r", "alg": "RS256", "use": "sig"}
    source.raw = json.dumps({"keys": [other, *json.loads(mint.jwks(without="r"))["keys"]]}).encode()
    await issuer.refresh()
    with pytest.raises(Unauthenticated):
        authenticator.identify(token)
    assert authenticator.identify(bearer(mint.token(key=mint.other_rsa))).name == "reports"


def test_changes_are_called_out(authenticator: Authenticator) -> None:
    """Once for each, until nobody watches any more."""
    seen: list[int] = []
    unwatch = authenticator.watch(lambda: seen.append(authenticator.generation))
    authenticator.replace(table_of(settings()))
    authenticator.invalidate()
    unwatch()
    unwatch()
    authenticator.invalidate()
    assert seen == [1, 2]


def test_who_is_recognised(mint: Any, authenticator: Authenticator, clock: Clock) -> None:
    """A key is known at once, a token from its check until its expiry; nobody else is, and nothing is verified."""
    token, stranger = bearer(mint.token(exp=NOW_S + 10)), bearer(mint.token(sub="system:serviceaccount:shop:other"))
    assert authenticator.authenticate_cached(b"Bearer key") == Authenticated(
        caller=authenticator.identify(b"Bearer key")
    )
    assert authenticator.authenticate_cached(token) is None
    caller = authenticator.identify(token)
    assert authenticator.authenticate_cached(token) == Authenticated(caller=caller, until_s=NOW_S + 10)
    with pytest.raises(NotAllowed):
        authenticator.identify(stranger)
    for field in (stranger, None, b"", b"Bearer ", b"Bearer wrong", b"Basic key"):
        assert authenticator.authenticate_cached(field) is None
    clock.now_s = NOW_S + 10
    assert authenticator.authenticate_cached(token) is None


async def test_who_is_recognised_no_more(mint: Any, clock: Clock) -> None:
    """Not with a token whose key the issuer has dropped, nor by a table with another issuer or without the caller."""
    source, seconds = Held(mint.jwks()), itertools.count(step=60)
    issuer = Issuer(source, refresh_s=300, clock=lambda: float(next(seconds)))
    await issuer.refresh()
    authenticator = Authenticator(table_of(settings()), issuer=issuer, clock=clock)
    issuer.on_drop = authenticator.invalidate
    token = bearer(mint.token())
    known = settings().service_accounts
    assert known is not None
    other = msgspec.structs.replace(known, audience="other")
    for table in (settings(callers={}), settings(service_accounts=other)):
        authenticator.replace(table_of(settings()))
        authenticator.identify(token)
        assert authenticator.authenticate_cached(token) is not None
        authenticator.replace(table_of(table))
        assert authenticator.authenticate_cached(token) is None
    authenticator.replace(table_of(settings()))
    authenticator.identify(token)
    source.raw = mint.jwks(without="r")
    generation = authenticator.generation
    await issuer.refresh()
    assert authenticator.authenticate_cached(token) is None
    assert authenticator.generation > generation


def test_without_keys_tokens_wait_and_keys_do_not(mint: Any, clock: Clock) -> None:
    """While no signing key is known a token must wait; what can't be a token is refused, and keys are accepted."""
    authenticator = Authenticator(table_of(settings()), issuer=Issuer(Held(b""), refresh_s=300), clock=clock)
    with pytest.raises(KeysUnavailable):
        authenticator.identify(bearer(mint.token()))
    for credential in ("a.b.c", "wrong", mint.forged({"alg": "none", "kid": "r"})):
        with pytest.raises(Unauthenticated):
            authenticator.identify(bearer(credential))
    assert authenticator.identify(b"Bearer key").name == "reports"


def test_where_tokens_are_not_taken(mint: Any) -> None:
    """Without the section a token is like any wrong key."""
    with pytest.raises(Unauthenticated):
        keys_only().identify(bearer(mint.token()))


def test_strangers(mint: Any, authenticator: Authenticator) -> None:
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


def test_what_a_new_table_takes_away(mint: Any, authenticator: Authenticator) -> None:
    """A caller, a key, an app, an account, an audience: gone at the very next request, cached tokens or not."""
    key, token = b"Bearer key", bearer(mint.token())
    for credential in (key, token):
        assert authenticator.identify(credential).apps == frozenset(("shop",))
    assert authenticator.generation == 0
    fewer = CallerSettings(keys=(hashed("key"),), service_accounts=("shop/reports",), apps=())
    authenticator.replace(table_of(settings(callers={"reports": fewer})))
    assert authenticator.generation == 1
    for credential in (key, token):
        assert authenticator.identify(credential).apps == frozenset()
    authenticator.replace(table_of(settings(callers={})))
    with pytest.raises(Unauthenticated):
        authenticator.identify(key)
    with pytest.raises(NotAllowed):
        authenticator.identify(token)
    known = settings().service_accounts
    assert known is not None
    other = msgspec.structs.replace(known, audience="other")
    authenticator.replace(table_of(settings(service_accounts=other)))
    with pytest.raises(Unauthenticated):
        authenticator.identify(token)
    assert authenticator.generation == 3


def test_auth_none() -> None:
    """With `auth: none` everybody is anonymous and may read all apps, whatever credentials they send."""
    authenticator = Authenticator(table_of(settings(auth="none")), issuer=None)
    for credential in (None, b"Bearer key", b"nonsense"):
        caller = authenticator.identify(credential)
        assert (caller.name, caller.apps, caller.operator) == ("anonymous", frozenset(("shop", "news")), True)
        assert authenticator.authenticate_cached(credential) == Authenticated(caller=caller)
