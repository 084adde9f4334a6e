"""The signer: when it signs again, and what it does not reveal."""

import pytest

from service.upstream.apps import UpstreamApp
from service.upstream.signer import Signer, renew_after_s

APP = UpstreamApp(name="shop", sdkappid=88888888, admin="admin", hosts=("https://upstream.invalid",))


class ChangingSecret:
    """A secret that a test changes; passes for `Secret`."""

    def __init__(self) -> None:
        self.value = b"0123456789abcdef"

    def read(self, now_s: float) -> bytes:
        del now_s
        return self.value


@pytest.mark.parametrize(
    ("valid_s", "after_s"), [(300, 270.0), (3000, 2700.0), (3600, 3300.0), (86_400 * 60, 86_400 * 60 - 300.0)]
)
def test_a_signature_is_renewed_before_it_expires(valid_s: int, after_s: float) -> None:
    """A signature is used until a tenth of its time is left, but no longer than until five minutes are left."""
    assert renew_after_s(valid_s) == after_s


def test_a_signature_is_reused_until_it_is_renewed() -> None:
    """One signature serves until shortly before its end; then the next is made."""
    signer = Signer(APP, ChangingSecret(), valid_s=3600)
    first = signer.current(1000.0)
    assert signer.current(1000.0 + 3299.9) is first
    second = signer.current(1000.0 + 3300.0)
    assert second.number == first.number + 1
    assert second.text != first.text


def test_a_signature_dated_in_the_future_is_not_used() -> None:
    """A signature that is dated in the future, because the clock stepped back, is not used."""
    signer = Signer(APP, ChangingSecret(), valid_s=3600)
    first = signer.current(1000.0)
    assert signer.current(999.0).number > first.number


def test_a_forgotten_signature_is_not_used_again() -> None:
    """A forgotten signature is not used again, and forgetting it late does not touch its successor."""
    signer = Signer(APP, ChangingSecret(), valid_s=3600)
    first = signer.current(1000.0)
    signer.forget(first)
    second = signer.current(1001.0)
    assert second.number > first.number
    signer.forget(first)
    assert signer.current(1002.0) is second


def test_a_changed_secret_changes_the_signature() -> None:
    """A changed secret changes the signature and the fingerprint at once; an unchanged one keeps the fingerprint."""
    secret = ChangingSecret()
    signer = Signer(APP, secret, valid_s=3600)
    first, before = signer.current(1000.0), signer.fingerprint(1000.0)
    assert signer.fingerprint(1001.0) == before
    secret.value = b"fedcba9876543210"
    assert signer.current(1000.0).number > first.number
    assert signer.fingerprint(1000.0) != before


def test_nothing_reveals_the_secret() -> None:
    """Neither a signature's repr nor a fingerprint holds the signature or the secret."""
    secret = ChangingSecret()
    signer = Signer(APP, secret, valid_s=3600)
    signature = signer.current(1000.0)
    for shown in (repr(signature), str(signature), f"{[signature]}", repr(signer), repr(signer.fingerprint(0.0))):
        assert signature.text not in shown
        assert secret.value.decode() not in shown
