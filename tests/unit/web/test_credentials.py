"""Callers known by keys."""

import hashlib

import pytest

from service.model.errors import Unauthenticated
from service.settings import CallerSettings
from service.web.credentials import KeyCallers

EMPTY = hashlib.sha256(b"").hexdigest()
KEY = hashlib.sha256(b"key").hexdigest()


def test_shared_key() -> None:
    """Two callers can't share a key."""
    settings = CallerSettings(keys=(KEY,), apps=("shop",))
    with pytest.raises(ValueError, match="a and b share a key"):
        KeyCallers({"a": settings, "b": settings}, waiting_max=1, wait_max_s=1.0)


def test_what_a_caller_may() -> None:
    """A caller has its own weight and apps, and everyone's bounds."""
    settings = CallerSettings(keys=(KEY, KEY), apps=("shop", "news"), weight=2.5)
    caller = KeyCallers({"a": settings}, waiting_max=7, wait_max_s=8.0).identify("Bearer key ")
    assert (caller.name, caller.apps, caller.weight) == ("a", frozenset(("shop", "news")), 2.5)
    assert (caller.waiting_max, caller.wait_max_s, caller.may_force) == (7, 8.0, True)


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Bearer  ", "Basic key", "Bearer key\n", "x"])
def test_an_empty_key_is_nobodys(authorization: str | None) -> None:
    """Whoever sends no key is nobody, even where the hash of nothing is configured as one."""
    callers = KeyCallers({"a": CallerSettings(keys=(EMPTY,), apps=())}, waiting_max=1, wait_max_s=1.0)
    with pytest.raises(Unauthenticated):
        callers.identify(authorization)
