"""Sources of an app's secret: a file that may change at run time, or an environment variable."""

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from service.settings import AppSettings

SECRET_MAX_BYTES = 4096
CHECK_EVERY_S = 1.0
LOOK_S = 0.02
"""How long a check of the file is awaited, in seconds."""
_SECRET_SHAPE = re.compile(r"[0-9a-f]{64}\Z")  # as the vendor's console shows it


class SecretMissing(ValueError):
    """No usable secret. The text says where it was expected and what is wrong, but does not reveal the content."""


class Secret(Protocol):
    """An app's secret."""

    def read(self, now_s: float) -> bytes:
        """Return the secret as ASCII bytes, without trailing line ends. Raise SecretMissing if it was never there."""
        ...


class EnvironmentSecret:
    """A secret in an environment variable, read once."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        value = environ.get(name)
        if value is None:
            raise SecretMissing(f"the environment variable {name} is not set")
        self._value = _checked(value.encode("utf-8", "surrogateescape"), f"the environment variable {name}")

    def read(self, now_s: float) -> bytes:
        """Return the secret; `now_s` is ignored."""
        del now_s
        return self._value


class FileSecret:
    """A secret in a file, reread when the file has changed; checked at most once a second.

    Links are followed, so that a change of a secret mounted by Kubernetes, which swaps a link, is seen. The last good
    secret stays in use while the file is missing or empty, for example while it is being written, and while it can't be
    read promptly, as on a file system that hangs: such a check continues in the background.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._looked_at_s: float | None = None
        self._seen: tuple[int, ...] | None = None
        self._value: bytes | None = None
        self._looker: threading.Thread | None = None

    def read(self, now_s: float) -> bytes:
        """Return the secret as of the last check; `now_s` is any clock in seconds."""
        if self._value is not None and self._looked_at_s is not None:
            if 0 <= now_s - self._looked_at_s < CHECK_EVERY_S:
                return self._value
            if self._looker is None or not self._looker.is_alive():
                self._looked_at_s = now_s
                self._looker = threading.Thread(target=self._look_again, name="secret", daemon=True)
                self._looker.start()
                self._looker.join(LOOK_S)
            return self._value
        value = self._load()
        self._looked_at_s = now_s
        return value

    def _look_again(self) -> None:
        try:
            if _identity(self._path.stat()) != self._seen:
                self._load()
        except (OSError, SecretMissing):
            pass  # the last good secret stays in use; the next check may find a new one

    def _load(self) -> bytes:
        what = f"the secret file {self._path}"
        try:
            with self._path.open("rb") as file:
                seen = _identity(os.fstat(file.fileno()))
                value = _checked(file.read(SECRET_MAX_BYTES + 1), what)
        except OSError as exc:
            raise SecretMissing(f"{what} can't be read: {exc.strerror}") from exc
        self._seen, self._value = seen, value
        return value


def secret_of(settings: AppSettings, environ: Mapping[str, str]) -> Secret:
    """Return the secret that an app's settings point to, after reading it once. Raise SecretMissing."""
    for name, value in (("secret_file", settings.secret_file), ("secret_env", settings.secret_env)):
        if value is not None and _SECRET_SHAPE.search(value):
            raise SecretMissing(f"{name} must name the location of the secret; this looks like the secret itself")
    match settings.secret_file, settings.secret_env:
        case str(path), None:
            secret = FileSecret(path)
            secret.read(0.0)
            return secret
        case None, str(name):
            return EnvironmentSecret(name, environ)
        case None, None:
            raise SecretMissing("neither secret_file nor secret_env is set")
        case _:
            raise SecretMissing("secret_file and secret_env are both set; remove one of them")


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size


def _checked(value: bytes, what: str) -> bytes:
    value = value.rstrip(b"\r\n")
    if not value:
        raise SecretMissing(f"{what} is empty")
    if len(value) > SECRET_MAX_BYTES:
        raise SecretMissing(f"{what} is longer than {SECRET_MAX_BYTES} bytes: this is not a secret")
    if not all(0x20 < byte < 0x7F for byte in value):
        raise SecretMissing(f"{what} contains characters other than printable ASCII, or blanks")
    return value
