"""When callers' keys and the certificates in configured files expire."""

import math
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.metrics_core import Metric

from service.callers.table import key_expiry_s
from service.settings import KeySettings, Settings
from service.telemetry.families import gauges

FILE_MAX_BYTES = 4 * 1024 * 1024
KEY_CHARS = 8
"""How many digits of a key's SHA-256 are its label."""

_Identity = tuple[int, int, int]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class ExpiryCollector:
    """Collects expiry times from the current settings. Files are reread when they change."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self._settings = settings
        self._read: dict[str, tuple[_Identity, float | None]] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield the expiry times, in seconds since the epoch; +Inf for a key without one."""
        settings = self._settings()
        text = "Expiry of a caller's key, in seconds since the epoch; +Inf for none."
        yield gauges("taskgate_key_expiry_timestamp_seconds", text, ("caller", "key"), _keys(settings))
        text = "Expiry of the certificate in a file, or of the last of several CAs, in seconds since the epoch."
        ends = [((name,), self._end(path, is_ca=name != _CLIENT)) for name, path in _files(settings).items()]
        known = [(labels, end) for labels, end in ends if end is not None]
        yield gauges("taskgate_certificate_expiry_timestamp_seconds", text, ("file",), known)

    def _end(self, path: str, *, is_ca: bool) -> float | None:
        """Return when the file's certificates expire; None if it can't be read."""
        try:
            stat = os.stat(path)
        except OSError:
            return None
        identity = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        seen = self._read.get(path)
        if seen is None or seen[0] != identity:
            seen = self._read[path] = (identity, _read(path, is_ca=is_ca))
        return seen[1]


_CLIENT = "redis.cert_file"


def _files(settings: Settings) -> Mapping[str, str]:
    """Return the files with certificates, by the settings that name them."""
    tokens = settings.service_accounts
    named = {
        "redis.ca_file": settings.redis.ca_file,
        _CLIENT: settings.redis.cert_file,
        "upstream.ca_file": settings.upstream.ca_file,
        "service_accounts.ca_file": None if tokens is None else tokens.ca_file,
    }
    return {name: path for name, path in named.items() if path is not None}


def _read(path: str, *, is_ca: bool) -> float | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            ends = ends_of(file.read(FILE_MAX_BYTES))
    except (OSError, ValueError):
        return None
    if not ends:
        return None
    return max(ends) if is_ca else ends[0]  # a client's own certificate comes first, before those of its issuers


def _keys(settings: Settings) -> Iterator[tuple[tuple[str, ...], float]]:
    for name, caller in settings.callers.items():
        for key in caller.keys:
            match key:
                case KeySettings(sha256=sha256, until=str(until)):
                    yield (name, sha256[:KEY_CHARS]), float(key_expiry_s(until))
                case KeySettings(sha256=sha256) | str(sha256):
                    yield (name, sha256[:KEY_CHARS]), math.inf


def ends_of(pem: str) -> list[float]:
    """Return when each certificate expires, in seconds since the epoch, in the file's order. Raise ValueError."""
    return [_end_of(ssl.PEM_cert_to_DER_cert(block)) for block in _PEM.findall(pem)]


def _end_of(der: bytes) -> float:
    from cryptography import x509  # noqa: PLC0415 - a tenth of a second, where certificates are configured

    try:
        return x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp()
    except ValueError as exc:
        raise ValueError("an unreadable certificate") from exc
