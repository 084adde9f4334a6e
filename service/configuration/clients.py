"""The clients of Redis and of the upstream, with the secrets that the settings name; `rules.py` has checked that these
exist."""

from collections.abc import Mapping
from pathlib import Path

from service.settings import RedisSettings, Settings, UpstreamSettings
from service.store.redis_store import OnStoreCall, RedisStore
from service.upstream.apps import upstream_app_of
from service.upstream.client import UpstreamClient
from service.upstream.secret import secret_of
from service.upstream.signer import Signer


def redis_store_of(
    settings: RedisSettings, environ: Mapping[str, str], *, on_call: OnStoreCall | None = None
) -> RedisStore:
    """Return a store. Passwords are read once, so using a changed one needs a restart."""
    return RedisStore(
        settings,
        password=_password(settings.password_file, settings.password_env, environ),
        sentinel_password=_password(settings.sentinel_password_file, settings.sentinel_password_env, environ),
        on_call=on_call,
    )


def signers_of(settings: Settings, environ: Mapping[str, str]) -> tuple[Signer, ...]:
    """Return a signer for each app."""
    return tuple(
        Signer(
            upstream_app_of(name, app, backup_hosts=settings.upstream.backup_hosts),
            secret_of(app, environ),
            valid_s=settings.upstream.signature_valid_s,
        )
        for name, app in settings.apps.items()
    )


def upstream_client_of(
    settings: UpstreamSettings, signers: tuple[Signer, ...], environ: Mapping[str, str]
) -> UpstreamClient:
    """Return a client of the signers' apps. The proxy's password is read once."""
    password = _password(settings.proxy_password_file, settings.proxy_password_env, environ)
    return UpstreamClient(settings, signers=signers, proxy_password=password)


def _password(path: str | None, variable: str | None, environ: Mapping[str, str]) -> str | None:
    if path is not None:
        return Path(path).read_text(encoding="utf-8").strip()
    return environ[variable] if variable is not None else None
