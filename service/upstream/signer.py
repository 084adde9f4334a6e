"""The signer of one app: one signature, renewed before it expires, and when it is refused or the secret changes."""

import hashlib
import hmac
import os

import msgspec

from service.upstream.apps import UpstreamApp
from service.upstream.secret import Secret
from service.upstream.usersig import sign

RENEW_BEFORE_S = 300.0


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A signature, its number, and the fingerprint of its secret (see `Signer.fingerprint`).

    A higher number is a later signature of the same signer.
    """

    text: str
    number: int
    fingerprint: bytes

    def __repr__(self) -> str:
        return f"Signature(number={self.number})"


class Signer:
    """Signs for one app. Times are wall-clock seconds since the epoch."""

    def __init__(self, app: UpstreamApp, secret: Secret, *, valid_s: int) -> None:
        self.app = app
        self._secret = secret
        self._valid_s = valid_s
        self._renew_after_s = renew_after_s(valid_s)
        self._salt = os.urandom(16)
        self._signature: Signature | None = None
        self._signed_at_s = 0.0
        self._signed_with = b""
        self._made = 0

    def current(self, now_s: float) -> Signature:
        """Return the signature to use now; make a new one if needed. Raise SecretMissing."""
        key = self._secret.read(now_s)
        signature = self._signature
        if signature is not None and key == self._signed_with and 0 <= now_s - self._signed_at_s < self._renew_after_s:
            return signature
        issued_at_s = int(now_s)
        text = sign(
            sdkappid=self.app.sdkappid, admin=self.app.admin, key=key, issued_at_s=issued_at_s, valid_s=self._valid_s
        )
        self._made += 1
        self._signature = Signature(text=text, number=self._made, fingerprint=self._fingerprint_of(key))
        self._signed_at_s, self._signed_with = issued_at_s, key
        return self._signature

    @property
    def signed_at_s(self) -> float | None:
        """When the current signature was created (wall clock); None if there is none."""
        return None if self._signature is None else self._signed_at_s

    def forget(self, signature: Signature) -> None:
        """Never use `signature` again; keep a newer one."""
        if self._signature is not None and self._signature.number == signature.number:
            self._signature = None

    def fingerprint(self, now_s: float) -> bytes:
        """Return a value that changes with the secret but does not reveal it. Meaningless outside this process."""
        return self._fingerprint_of(self._secret.read(now_s))

    def _fingerprint_of(self, key: bytes) -> bytes:
        return hmac.new(self._salt, key, hashlib.sha256).digest()


def renew_after_s(valid_s: int) -> float:
    """Return how long a signature is used: until a tenth of its time is left, or five minutes, whichever is less."""
    return valid_s - min(valid_s / 10, RENEW_BEFORE_S)
