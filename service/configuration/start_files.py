"""Files that are read only at start. If one changes, using it needs a restart."""

import hashlib
from collections.abc import Mapping

from service.settings import Settings

FILE_MAX_BYTES = 4 * 1024 * 1024


def start_files_of(settings: Settings) -> Mapping[str, str]:
    """Return the paths of these files, by the settings that name them."""
    redis = settings.redis
    named = {
        "redis.password_file": redis.password_file,
        "redis.sentinel_password_file": redis.sentinel_password_file,
        "redis.ca_file": redis.ca_file,
        "redis.cert_file": redis.cert_file,
        "redis.key_file": redis.key_file,
        "upstream.ca_file": settings.upstream.ca_file,
        "upstream.proxy_password_file": settings.upstream.proxy_password_file,
    }
    return {name: path for name, path in named.items() if path is not None}


def digests_of(settings: Settings) -> Mapping[str, bytes]:
    """Return a digest of each such file's content, by the setting that names it; empty for an unreadable file."""
    return {name: _digest(path) for name, path in start_files_of(settings).items()}


def _digest(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read(FILE_MAX_BYTES)).digest()
    except OSError:
        return b""
