"""Check callers' credentials and the settings of the token issuer."""

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from service.callers.table import key_expiry_s
from service.configuration.errors import SettingFault
from service.settings import CallerSettings, KeySettings, PolicySettings, ServiceAccountSettings


def caller_faults(
    callers: Mapping[str, CallerSettings], app_names: Sequence[str], *, has_tokens: bool
) -> Iterator[SettingFault]:
    """Report unknown apps, duplicate keys and accounts, and invalid expiry times."""
    seen: dict[str, str] = {}
    for name, caller in callers.items():
        yield from _policy_faults(f"callers.{name}", caller, app_names)
        for index, entry in enumerate(caller.keys):
            path = f"callers.{name}.keys[{index}]"
            sha256 = entry.sha256 if isinstance(entry, KeySettings) else entry
            if sha256 in seen:
                yield SettingFault(path=path, text=f"the same key as {seen[sha256]}")
            seen.setdefault(sha256, path)
            if isinstance(entry, KeySettings) and entry.until is not None:
                yield from _expiry_faults(f"{path}.until", entry.until)
        for index, account in enumerate(caller.service_accounts):
            path = f"callers.{name}.service_accounts[{index}]"
            if account in seen:
                yield SettingFault(path=path, text=f"the same as {seen[account]}")
            seen.setdefault(account, path)
        if caller.service_accounts and not has_tokens:
            yield SettingFault(path=f"callers.{name}.service_accounts", text="needs the section service_accounts")


def service_account_faults(settings: ServiceAccountSettings, app_names: Sequence[str]) -> Iterator[SettingFault]:
    """Check the source of the signing keys, and the permissions of unnamed accounts."""
    section = "service_accounts"
    match settings.jwks_url, settings.jwks_file:
        case None, None:
            yield SettingFault(path=section, text="set one of jwks_url and jwks_file")
        case str(), str():
            yield SettingFault(path=section, text="jwks_url and jwks_file are both set; remove one of them")
        case str(url), None:
            yield from _url_faults(f"{section}.jwks_url", url)
    for name, path in (("ca_file", settings.ca_file), ("token_file", settings.token_file)):
        if path is not None and settings.jwks_url is None:
            yield SettingFault(path=f"{section}.{name}", text="is only valid with jwks_url")
    for name in ("jwks_file", "ca_file", "token_file"):
        if (path := getattr(settings, name)) is not None:
            yield from file_faults(f"{section}.{name}", path)
    if settings.unknown is not None:
        yield from _policy_faults(f"{section}.unknown", settings.unknown, app_names)


def _policy_faults(path: str, policy: PolicySettings, app_names: Sequence[str]) -> Iterator[SettingFault]:
    for index, app in enumerate(policy.apps):
        if app not in app_names:
            yield SettingFault(
                path=f"{path}.apps[{index}]", text=f"no such app; known apps: {', '.join(app_names) or 'none'}"
            )


def _expiry_faults(path: str, until: str) -> Iterator[SettingFault]:
    try:
        key_expiry_s(until)
    except ValueError as exc:
        yield SettingFault(path=path, text=str(exc))


def _url_faults(path: str, url: str) -> Iterator[SettingFault]:
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not url.isascii() or not url.isprintable():
        yield SettingFault(path=path, text="expected https://HOST/PATH")
    elif "@" in parts.netloc:
        yield SettingFault(path=path, text="contains a user or a password; name a token_file instead")


def file_faults(path: str, file: str) -> Iterator[SettingFault]:
    """Report a file that can't be read or is empty; `path` is the setting that names it."""
    try:
        with open(file, "rb") as opened:
            if not opened.read(4096).strip():
                yield SettingFault(path=path, text=f"the file {file} is empty")
    except OSError as exc:
        yield SettingFault(path=path, text=f"the file {file} can't be read: {exc.strerror}")
