"""Rules between settings, and for the files and variables that they name. Each section is checked even if another one
is invalid."""

import ipaddress
import ssl
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import TypeVar

import msgspec

from service.configuration.callers import caller_faults, file_faults, service_account_faults
from service.configuration.errors import SettingFault
from service.configuration.urls import is_loopback, proxy_url_faults, redis_url_faults
from service.configuration.validate import struct_fields
from service.configuration.yaml_file import Tree
from service.http_client.addresses import tls_context
from service.model.queries import At, FromNow, Moment, parse_moment, parse_until
from service.settings import (
    AppSettings,
    BudgetSettings,
    CacheSettings,
    CallerSettings,
    QuerySettings,
    RedisSettings,
    ServerSettings,
    ServiceAccountSettings,
    TelemetrySettings,
    UpstreamSettings,
)
from service.upstream.apps import checked_base_url
from service.upstream.codes import CodeKind, kind_of
from service.upstream.regions import REGION_NAMES
from service.upstream.secret import SecretMissing, secret_of

_DAY_S = 86_400
T = TypeVar("T", bound=msgspec.Struct)


class ValidParts(msgspec.Struct, frozen=True, kw_only=True):
    """The sections with a valid shape; one without is None, or left out of its dict."""

    apps: dict[str, AppSettings]
    app_names: tuple[str, ...]
    callers: dict[str, CallerSettings]
    auth: str
    has_tokens: bool
    service_accounts: ServiceAccountSettings | None
    redis: RedisSettings | None
    budget: BudgetSettings | None
    cache: CacheSettings | None
    upstream: UpstreamSettings | None
    query: QuerySettings | None
    server: ServerSettings | None
    telemetry: TelemetrySettings | None


def valid_parts_of(tree: Tree) -> ValidParts:
    """Return the part of the tree that can be converted to settings."""
    apps, callers = tree.get("apps"), tree.get("callers")
    return ValidParts(
        apps=_entries(apps, AppSettings),
        app_names=tuple(apps) if isinstance(apps, dict) else (),
        callers=_entries(callers, CallerSettings),
        auth=str(tree.get("auth", "callers")),
        has_tokens=tree.get("service_accounts") is not None,
        service_accounts=_part(tree.get("service_accounts"), ServiceAccountSettings),
        redis=_part(tree.get("redis", {}), RedisSettings),
        budget=_part(tree.get("budget", {}), BudgetSettings),
        cache=_part(tree.get("cache", {}), CacheSettings),
        upstream=_part(tree.get("upstream", {}), UpstreamSettings),
        query=_part(tree.get("query", {}), QuerySettings),
        server=_part(tree.get("server", {}), ServerSettings),
        telemetry=_part(tree.get("telemetry", {}), TelemetrySettings),
    )


def rule_faults(parts: ValidParts, environ: Mapping[str, str]) -> Iterator[SettingFault]:
    """Return all faults between the sections, and of the files and variables that they name."""
    for name, app in parts.apps.items():
        yield from _app_faults(f"apps.{name}", app, environ)
        if parts.budget:
            yield from _share_faults(f"apps.{name}", app, parts.budget)
    yield from caller_faults(parts.callers, parts.app_names, has_tokens=parts.has_tokens)
    if parts.service_accounts:
        yield from service_account_faults(parts.service_accounts, parts.app_names)
    if parts.auth == "none" and parts.server and not is_loopback(parts.server.host):
        yield SettingFault(
            path="auth", text="none is allowed on loopback only; server.host must be 127.0.0.1, ::1 or localhost"
        )
    if parts.redis:
        yield from redis_url_faults(parts.redis)
        yield from _redis_faults(parts.redis, environ)
    if parts.budget and parts.budget.wait_default_s > parts.budget.wait_max_s:
        text = f"{parts.budget.wait_default_s:g} is more than budget.wait_max_s, {parts.budget.wait_max_s:g}"
        yield SettingFault(path="budget.wait_default_s", text=text)
    if parts.upstream:
        yield from _timeout_faults(parts.upstream)
        yield from _proxy_and_ca_faults(parts.upstream, environ)
        yield from _code_faults(parts.upstream)
    if parts.server:
        yield from _trusted_proxy_faults(parts.server)
    if parts.query:
        yield from _query_faults(parts.query)
    if parts.telemetry:
        yield from _telemetry_faults(parts.telemetry, parts.server)


def _app_faults(path: str, app: AppSettings, environ: Mapping[str, str]) -> Iterator[SettingFault]:
    match app.secret_file, app.secret_env:
        case None, None:
            yield SettingFault(path=path, text="set one of secret_file and secret_env")
        case str(), str():
            yield SettingFault(path=path, text="secret_file and secret_env are both set; remove one of them")
        case _:
            try:
                secret_of(app, environ)
            except SecretMissing as exc:
                yield SettingFault(path=f"{path}.{'secret_file' if app.secret_file else 'secret_env'}", text=str(exc))
    if app.region is not None and app.base_url is not None:
        yield SettingFault(path=path, text="region and base_url are both set; remove one of them")
    if app.region is not None and app.region not in REGION_NAMES:
        yield SettingFault(path=f"{path}.region", text=f"no such region; known regions: {', '.join(REGION_NAMES)}")
    if app.base_url is not None:
        try:
            checked_base_url(app.base_url)
        except ValueError as exc:
            yield SettingFault(path=f"{path}.base_url", text=str(exc))


def _share_faults(path: str, app: AppSettings, budget: BudgetSettings) -> Iterator[SettingFault]:
    calls = budget.calls if app.calls is None else app.calls
    if budget.on_redis_down == "share" and budget.max_replicas > calls:
        where = "budget.calls" if app.calls is None else f"{path}.calls"
        text = f"{budget.max_replicas} replicas can't share {calls} calls ({where}) while Redis is away"
        yield SettingFault(path="budget.max_replicas", text=text)


def _redis_faults(redis: RedisSettings, environ: Mapping[str, str]) -> Iterator[SettingFault]:
    yield from _redis_tls_faults(redis)
    yield from _password_faults("redis", "password", redis.password_file, redis.password_env, environ)
    yield from _password_faults(
        "redis", "sentinel_password", redis.sentinel_password_file, redis.sentinel_password_env, environ
    )


def _redis_tls_faults(redis: RedisSettings) -> Iterator[SettingFault]:
    """Yield the faults of the files for TLS."""
    named = {name: getattr(redis, name) for name in ("ca_file", "cert_file", "key_file")}
    given = {name: path for name, path in named.items() if path is not None}
    if given and not redis.url.startswith("rediss://"):
        yield SettingFault(path=f"redis.{next(iter(given))}", text="needs TLS: a redis.url that begins with rediss://")
    if (redis.cert_file is None) != (redis.key_file is None):
        yield SettingFault(path="redis", text="cert_file and key_file must be set together")
    for name, path in given.items():
        try:
            with open(path, "rb") as file:
                is_pem = b"-----BEGIN" in file.read(1_000_000)
        except OSError as exc:
            yield SettingFault(path=f"redis.{name}", text=f"the file {path} can't be read: {exc.strerror}")
        else:
            if not is_pem:
                yield SettingFault(path=f"redis.{name}", text=f"the file {path} is not PEM")


def _password_faults(
    section: str, name: str, path: str | None, variable: str | None, environ: Mapping[str, str]
) -> Iterator[SettingFault]:
    if path is not None and variable is not None:
        yield SettingFault(path=section, text=f"{name}_file and {name}_env are both set; remove one of them")
    elif variable is not None and not environ.get(variable):
        yield SettingFault(
            path=f"{section}.{name}_env", text=f"the environment variable {variable} is not set, or empty"
        )
    elif path is not None:
        yield from file_faults(f"{section}.{name}_file", path)


def _timeout_faults(upstream: UpstreamSettings) -> Iterator[SettingFault]:
    for name, value_s in (
        ("connect_timeout_s", upstream.connect_timeout_s),
        ("read_timeout_s", upstream.read_timeout_s),
    ):
        if value_s > upstream.call_timeout_s:
            text = f"{value_s:g} is more than upstream.call_timeout_s, {upstream.call_timeout_s:g}, for the whole call"
            yield SettingFault(path=f"upstream.{name}", text=text)


def _proxy_and_ca_faults(upstream: UpstreamSettings, environ: Mapping[str, str]) -> Iterator[SettingFault]:
    """Return the faults of the proxy's address and credentials, and of the CAs to trust."""
    if upstream.proxy_url is not None:
        yield from proxy_url_faults("upstream.proxy_url", upstream.proxy_url)
    elif upstream.proxy_username is not None:
        yield SettingFault(path="upstream.proxy_username", text="is only valid with proxy_url")
    file, variable = upstream.proxy_password_file, upstream.proxy_password_env
    if (upstream.proxy_username is None) != (file is None and variable is None):
        text = "proxy_username and one of proxy_password_file and proxy_password_env must be set together"
        yield SettingFault(path="upstream", text=text)
    yield from _password_faults("upstream", "proxy_password", file, variable, environ)
    if upstream.ca_file is not None:
        try:
            tls_context(upstream.ca_file)
        except ssl.SSLError:
            yield SettingFault(path="upstream.ca_file", text=f"the file {upstream.ca_file} has no certificate (PEM)")
        except OSError as exc:
            text = f"the file {upstream.ca_file} can't be read: {exc.strerror}"
            yield SettingFault(path="upstream.ca_file", text=text)


def _trusted_proxy_faults(server: ServerSettings) -> Iterator[SettingFault]:
    for index, network in enumerate(server.trusted_proxies):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            text = "expected an IP network whose host bits are 0, such as 10.0.0.0/8"
            yield SettingFault(path=f"server.trusted_proxies[{index}]", text=text)


def _code_faults(upstream: UpstreamSettings) -> Iterator[SettingFault]:
    """Return faults for codes that can't mean an unknown task, because they have another meaning for every call."""
    for code in upstream.unknown_task_codes:
        if kind_of(code) not in (CodeKind.UNKNOWN, CodeKind.CALLER_FAULT):
            text = f"{code} means something else for every call ({kind_of(code)})"
            yield SettingFault(path="upstream.unknown_task_codes", text=text)


def _telemetry_faults(telemetry: TelemetrySettings, server: ServerSettings | None) -> Iterator[SettingFault]:
    if server and telemetry.metrics_port == server.port:
        yield SettingFault(path="telemetry.metrics_port", text="the same as server.port: metrics need a separate port")
    if telemetry.otlp_endpoint is not None and not _has_otel():
        yield SettingFault(path="telemetry.otlp_endpoint", text="needs the extra otel: pip install 'taskgate[otel]'")


def _has_otel() -> bool:
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def _query_faults(query: QuerySettings) -> Iterator[SettingFault]:
    ends: list[Moment] = []
    for name, text, parse in (("since", query.since, parse_moment), ("until", query.until, parse_until)):
        try:
            ends.append(parse(text))
        except ValueError as exc:
            yield SettingFault(path=f"query.{name}", text=str(exc))
    length_s = _length_s(*ends) if len(ends) == 2 else None
    if length_s is None:
        return
    if length_s <= 0:
        yield SettingFault(path="query.since", text="is not before query.until")
    elif query.range_max_days is not None and length_s > query.range_max_days * _DAY_S:
        text = f"query.since to query.until is longer than {query.range_max_days} days"
        yield SettingFault(path="query.range_max_days", text=text)


def _length_s(since: Moment, until: Moment) -> int | None:
    """Return the seconds from one to the other; None if they vary with the clock."""
    match since, until:
        case At(epoch_s=since_s), At(epoch_s=until_s):
            return until_s - since_s
        case FromNow(offset_s=since_s), FromNow(offset_s=until_s):
            return until_s - since_s
    return None


def _entries(entries: object, kind: type[T]) -> dict[str, T]:
    if not isinstance(entries, dict):
        return {}
    made = {str(name): _part(entry, kind) for name, entry in entries.items()}
    return {name: part for name, part in made.items() if part is not None}


def _part(section: object, kind: type[T]) -> T | None:
    """Return the section without its unknown keys, which are reported as faults of the shape."""
    if isinstance(section, dict):
        section = {key: value for key, value in section.items() if key in struct_fields(kind)}
    try:
        return msgspec.convert(section, kind)
    except msgspec.ValidationError:
        return None
