"""Passwords of Redis and of a proxy, read from where the settings point; `rules.py` has checked that they are there."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from service.settings import RedisSettings, UpstreamSettings


class Passwords(msgspec.Struct, frozen=True, kw_only=True):
    """The passwords; None where none is set."""

    redis: str | None
    sentinel: str | None


def passwords_of(settings: RedisSettings, environ: Mapping[str, str]) -> Passwords:
    """Read both passwords."""
    return Passwords(
        redis=_one(settings.password_file, settings.password_env, environ),
        sentinel=_one(settings.sentinel_password_file, settings.sentinel_password_env, environ),
    )


def proxy_password_of(settings: UpstreamSettings, environ: Mapping[str, str]) -> str | None:
    """Read the proxy's password; None if none is set."""
    return _one(settings.proxy_password_file, settings.proxy_password_env, environ)


def _one(path: str | None, variable: str | None, environ: Mapping[str, str]) -> str | None:
    if path is not None:
        return Path(path).read_text(encoding="utf-8").strip()
    return environ[variable] if variable is not None else None
