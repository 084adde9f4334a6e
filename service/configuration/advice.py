"""Warnings about settings that are valid but probably unintended."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from service.callers.table import key_expiry_s
from service.configuration.errors import SettingFault
from service.configuration.urls import is_loopback
from service.settings import KeySettings, Settings
from service.upstream.regions import contradiction

LIMIT_MAX = 100


def settings_advice(settings: Settings, *, now_s: float) -> Iterator[SettingFault]:
    """Return warnings about valid settings; `now_s` is in seconds since the epoch."""
    yield from _app_advice(settings)
    yield from _budget_advice(settings)
    if settings.cache.block_size < LIMIT_MAX:
        text = f"pages have at most {settings.cache.block_size} tasks, the size of a block"
        yield SettingFault(path="cache.block_size", text=text)
    yield from _caller_advice(settings)
    yield from _key_advice(settings, now_s=now_s)


def _caller_advice(settings: Settings) -> Iterator[SettingFault]:
    tokens = settings.service_accounts
    if settings.auth == "none":
        text = f"none: every client that reaches {settings.server.host} may read every app, and `callers` is ignored"
        yield SettingFault(path="auth", text=text)
    elif not settings.callers and (tokens is None or tokens.unknown is None):
        yield SettingFault(path="callers", text="there are no callers: every request is rejected")
    for name, caller in settings.callers.items():
        if not caller.apps:
            yield SettingFault(path=f"callers.{name}.apps", text="is empty: this caller can read nothing")
        if not caller.keys and not caller.service_accounts:
            text = "is empty, and so is service_accounts: this caller can read nothing"
            yield SettingFault(path=f"callers.{name}.keys", text=text)
    url = urlsplit((tokens.jwks_url if tokens else None) or "")
    if url.scheme == "http" and not is_loopback(url.hostname):
        text = "http lets anyone on the network path sign tokens; use https"
        yield SettingFault(path="service_accounts.jwks_url", text=text)


def _key_advice(settings: Settings, *, now_s: float) -> Iterator[SettingFault]:
    for name, caller in settings.callers.items():
        for index, key in enumerate(caller.keys):
            if isinstance(key, KeySettings) and key.until is not None and key_expiry_s(key.until) <= now_s:
                text = f"{key.until}: this key has expired; remove it"
                yield SettingFault(path=f"callers.{name}.keys[{index}].until", text=text)


def _app_advice(settings: Settings) -> Iterator[SettingFault]:
    by_id: dict[int, str] = {}
    for name, app in settings.apps.items():
        if app.region is not None and (expected := contradiction(app.region, app.sdkappid)):
            text = f"the SDKAppID's range belongs to the region {expected}, not to {app.region}"
            yield SettingFault(path=f"apps.{name}.region", text=text)
        base = urlsplit(app.base_url or "")
        if base.scheme == "http" and not is_loopback(base.hostname):
            yield SettingFault(path=f"apps.{name}.base_url", text="http sends signatures in plain text; use https")
        if app.sdkappid in by_id:
            text = f"the same as apps.{by_id[app.sdkappid]}: the upstream counts both as one, Taskgate does not"
            yield SettingFault(path=f"apps.{name}.sdkappid", text=text)
        by_id.setdefault(app.sdkappid, name)


def _budget_advice(settings: Settings) -> Iterator[SettingFault]:
    lease_s, budget = settings.budget.turn_lease_s, settings.budget
    if lease_s > budget.window_s:
        text = f"{lease_s:g} is more than budget.window_s: a replica that dies blocks slots for that long"
        yield SettingFault(path="budget.turn_lease_s", text=text)
    if lease_s <= settings.redis.timeout_s:
        text = f"{lease_s:g} is not more than redis.timeout_s: turns lapse if Redis is slow"
        yield SettingFault(path="budget.turn_lease_s", text=text)
    if settings.server.drain_s < budget.wait_max_s:
        text = f"{settings.server.drain_s:g} is less than budget.wait_max_s: a restart rejects the longest waits"
        yield SettingFault(path="server.drain_s", text=text)
