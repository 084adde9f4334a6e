"""Load the configuration, in order: file, environment, shape, rules."""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from service.configuration.advice import settings_advice
from service.configuration.environment import apply_overrides
from service.configuration.errors import ConfigurationError, SettingFault
from service.configuration.rules import rule_faults, valid_parts_of
from service.configuration.validate import shape_faults
from service.configuration.yaml_file import MAX_BYTES, Tree, Value, read_document
from service.settings import Settings
from service.upstream.regions import region_of


class LoadedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A usable configuration and its warnings."""

    settings: Settings
    warnings: tuple[SettingFault, ...]


def load(path: str | Path | None, environ: Mapping[str, str]) -> LoadedSettings:
    """Read the file at `path` (None: the environment alone) with the overrides of `environ`.

    Resolve relative paths of secrets against the file's directory, and give an app without region and base URL the
    region of its SDKAppID's range. Raise ConfigurationError with every fault found.
    """
    tree, faults = _read(Path(path)) if path is not None else ({}, [])
    if faults and not tree:
        raise ConfigurationError(faults)
    sources, wrong = apply_overrides(tree, environ)
    faults += wrong
    _make_paths_absolute(tree, Path(path).absolute().parent if path is not None else Path.cwd())
    faults += shape_faults(tree, Settings, "")
    faults += rule_faults(valid_parts_of(tree), environ)
    if faults:
        raise ConfigurationError(_deduplicate(faults, sources))
    settings = _fill_regions(msgspec.convert(tree, Settings))
    return LoadedSettings(
        settings=settings, warnings=_deduplicate(list(settings_advice(settings, now_s=time.time())), sources)
    )


def _read(path: Path) -> tuple[Tree, list[SettingFault]]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as exc:
        return {}, [SettingFault(path=str(path), text=f"can't be read: {exc.strerror}")]
    return read_document(raw, name=str(path))


def _make_paths_absolute(tree: Tree, folder: Path) -> None:
    """Make file paths absolute without resolving links, because Kubernetes swaps the links of mounted files."""
    apps = tree.get("apps")
    sections: list[tuple[Value, str]] = [
        (tree.get("redis"), key)
        for key in ("password_file", "sentinel_password_file", "ca_file", "cert_file", "key_file")
    ]
    sections += [(tree.get("upstream"), key) for key in ("ca_file", "proxy_password_file")]
    sections += [(tree.get("service_accounts"), key) for key in ("jwks_file", "ca_file", "token_file")]
    sections += [(app, "secret_file") for app in (apps.values() if isinstance(apps, dict) else ())]
    for section, key in sections:
        if isinstance(section, dict) and isinstance(path := section.get(key), str) and path:
            section[key] = str(folder / path)


def _deduplicate(faults: list[SettingFault], sources: Mapping[str, str]) -> tuple[SettingFault, ...]:
    """Return each fault once, in the order found, with the variable that set the field."""
    marked = (
        SettingFault(path=fault.path, text=f"{fault.text} (set by {sources[fault.path]})")
        if fault.path in sources
        else fault
        for fault in faults
    )
    return tuple(dict.fromkeys(marked))


def _fill_regions(settings: Settings) -> Settings:
    apps = {
        name: app
        if app.region is not None or app.base_url is not None
        else msgspec.structs.replace(app, region=region_of(app.sdkappid))
        for name, app in settings.apps.items()
    }
    return msgspec.structs.replace(settings, apps=apps)
