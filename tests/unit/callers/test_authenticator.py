"""Authentication: keys that expire, tokens valid and forged, and the effects of changes of the table."""

import hashlib
import statistics
import time
from typing import Any

import msgspec
import pytest

from service.callers.authenticator import Authenticator, bearer_of, is_credential
from service.callers.table import table_of
from service.model.callers import Authenticated
from service.model.errors import NotAllowed, Unauthenticated
from service.settings import BudgetSettings, CallerSettings, KeySettings
from tests.settings import hashed
from tests.unit.callers.tables import NOW_S, Clock, Held, bearer, keys_only, settings, with_issuer

TODAY = "2025-06-15T15:06:40Z"
EMPTY = hashlib.sha256(b"").hexdigest()


def test_callers_cannot_share_a_key_or_an_account() -> None:
    """Two callers can't share a key or an account."""
    both = CallerSettings(keys=(hashed("key"),), apps=("shop",))
    with pytest.raises(ValueError, match="a and b share a key"):
        table_of(settings(callers={"a": both, "b": both}))
    same = CallerSettings(service_accounts=("x/y",), apps=("shop",))
    with pytest.raises(ValueError, match="a and b share a service account"):
        table_of(settings(callers={"a": same, "b": same}))


def test_a_caller_has_the_rights_in_its_settings() -> None:
    """A caller has the rights in its settings, the budget's bounds where none are set, and operators know all apps."""
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
def test_an_empty_key_is_rejected(authorization: bytes | None) -> None:
    """A request without a key is unauthenticated, even if the hash of the empty string is configured as a key."""
    authenticator = keys_only(a=CallerSettings(keys=(EMPTY,), apps=()))
    with pytest.raises(Unauthenticated) as caught:
        authenticator.identify(authorization)
    assert caught.value.presented is bool(authorization)


@pytest.mark.parametrize(
    ("until", "is_good"),
    [(None, True), ("2025-06-16", True), ("2025-06-15", False), ("2025-06-15T15:06:41Z", True), (TODAY, False)],
)
def test_a_key_is_valid_until_it_expires(until: str | None, is_good: bool) -> None:
    """Each of a caller's keys has its own expiry; from that instant on it is like an unknown one."""
    entries = (KeySettings(sha256=hashed("old"), until=until), hashed("new"))
    authenticator = keys_only(a=CallerSettings(keys=entries, apps=()))
    assert authenticator.identify(b"Bearer new").name == "a"
    if is_good:
        assert authenticator.identify(b"Bearer old").name == "a"
    else:
        with pytest.raises(Unauthenticated):
            authenticator.identify(b"Bearer old")


def test_wrong_missing_and_expired_keys_take_the_same_time() -> None:
    """Over many tries the medians for a wrong key, an expired one and none at all lie within a third."""
    many = {
        f"c{number}": CallerSettings(keys=(KeySettings(sha256=hashed(f"key{number}"), until="2020-01-01"),), apps=())
        for number in range(500)
    }
    authenticator = keys_only(**many)

    def took_s(authorization: bytes | None) -> float:
        begun = time.process_time()
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                authenticator.identify(authorization)
        return time.process_time() - begun

    tries = [(took_s(b"Bearer key250"), took_s(b"Bearer kex250"), took_s(None)) for _ in range(60)]
    medians = [statistics.median(times) for times in zip(*tries, strict=True)]
    assert max(medians) / min(medians) < 1.33, medians


def test_watchers_are_called_at_each_change(authenticator: Authenticator) -> None:
    """Each watcher is called once for each change, until it stops watching."""
    seen: list[int] = []
    unwatch = authenticator.watch(lambda: seen.append(authenticator.generation))
    authenticator.replace(table_of(settings()))
    authenticator.invalidate()
    unwatch()
    unwatch()
    authenticator.invalidate()
    assert seen == [1, 2]


def test_authenticate_cached_returns_known_credentials(mint: Any, authenticator: Authenticator, clock: Clock) -> None:
    """Keys are known at once, tokens from their verification until their expiry; nothing else is, and nothing is
    verified."""
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


async def test_authenticate_cached_forgets_revoked_credentials(mint: Any, clock: Clock) -> None:
    """A token is forgotten when the issuer drops its key, or when a new table has another issuer or lacks the
    caller."""
    source = Held(mint.jwks())
    authenticator, issuer = await with_issuer(source, clock)
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


def test_a_new_table_revokes_at_once(mint: Any, authenticator: Authenticator) -> None:
    """A removed caller, key, app, account or audience is rejected at the next request, even for cached tokens."""
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


def test_without_authentication_every_caller_is_anonymous() -> None:
    """With `auth: none` every caller is anonymous and may read all apps, whatever credentials it sends."""
    authenticator = Authenticator(table_of(settings(auth="none")), issuer=None)
    for credential in (None, b"Bearer key", b"nonsense"):
        caller = authenticator.identify(credential)
        assert (caller.name, caller.apps, caller.operator) == ("anonymous", frozenset(("shop", "news")), True)
        assert authenticator.authenticate_cached(credential) == Authenticated(caller=caller)


def test_credentials_have_a_largest_size() -> None:
    """8 KiB, and the field 64 bytes more: whatever is longer is not even looked at."""
    longest = b"k" * 8192
    assert is_credential(longest)
    assert not is_credential(longest + b"k")
    assert bearer_of(b"Bearer " + b" " * 57 + longest) == longest
    assert bearer_of(b"Bearer " + b" " * 58 + longest) == b""
