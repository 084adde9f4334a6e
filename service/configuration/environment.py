"""Overrides from the environment: `TASKGATE__REDIS__URL`, `TASKGATE__APPS__SHOP__REGION`."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

import msgspec

from service.configuration.errors import SettingFault
from service.configuration.validate import bare_type, child_path, is_optional, struct_fields, struct_in
from service.configuration.yaml_file import Tree, Value, plain_scalar
from service.settings import Settings

PREFIX = "TASKGATE__"


class OverrideTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A field that a variable names: the path of keys to it, and its type."""

    keys: tuple[str, ...]
    hint: Any

    @property
    def path(self) -> str:
        return ".".join(self.keys)


def apply_overrides(tree: Tree, environ: Mapping[str, str]) -> tuple[dict[str, str], list[SettingFault]]:
    """Write the environment's overrides into the tree. Return which variable set which path, and the faults."""
    sources: dict[str, str] = {}
    faults: list[SettingFault] = []
    for variable in sorted(environ):
        if not variable.upper().startswith(PREFIX):
            continue
        targets = list(_targets(_normalize(variable)[len(PREFIX) :], tree, Settings, ()))
        if len(targets) != 1:
            found = f"may mean {' or '.join(target.path for target in targets)}" if targets else _not_a_setting(tree)
            faults.append(SettingFault(path=variable, text=found))
        elif (target := targets[0]).path in sources:
            faults.append(SettingFault(path=variable, text=f"sets {target.path}, as {sources[target.path]} does"))
        else:
            try:
                _write(tree, target, _convert(environ[variable], target.hint))
                sources[target.path] = variable
            except ValueError as exc:
                faults.append(SettingFault(path=variable, text=str(exc)))
    return sources, faults


def _targets(rest: str, tree: Value, hint: Any, keys: tuple[str, ...]) -> Iterator[OverrideTarget]:
    """Return every field below `hint` that the rest of a variable's name may mean."""
    bare = bare_type(hint)
    if (struct := struct_in(hint)) is not None:
        choices = struct_fields(struct)
    elif get_origin(bare) is dict:
        choices = dict.fromkeys(tree if isinstance(tree, dict) else (), get_args(bare)[1])
    else:
        return
    for key, inner in choices.items():
        name = _normalize(key)
        if rest == name and not _has_fields(inner):
            yield OverrideTarget(keys=(*keys, key), hint=inner)
        elif rest.startswith(f"{name}__"):
            inside = tree.get(key) if isinstance(tree, dict) else None
            yield from _targets(rest[len(name) + 2 :], inside, inner, (*keys, key))


def _has_fields(hint: Any) -> bool:
    return get_origin(bare_type(hint)) is dict or struct_in(hint) is not None


def _normalize(name: str) -> str:
    return name.upper().replace("-", "_").replace(".", "_")


def _not_a_setting(tree: Tree) -> str:
    """Describe the expected form of the name; the environment can change apps and callers, not add them."""
    apps = tree.get("apps")
    named = f"; the file's apps are {', '.join(apps)}" if isinstance(apps, dict) and apps else ""
    return f"is not a setting (TASKGATE__SECTION__KEY, TASKGATE__APPS__NAME__KEY){named}"


def _convert(text: str, hint: Any) -> Value:
    """Return a variable's value as the field's type requires; it is validated with the rest of the tree."""
    bare = bare_type(hint)
    if get_origin(bare) is tuple:
        of_numbers = bare_type(get_args(bare)[0]) is int
        try:
            return msgspec.json.decode(text, type=list[int] if of_numbers else list[str])  # type: ignore[return-value]  # both are a Value
        except msgspec.MsgspecError as exc:
            expected = "whole numbers, such as [1, 2]" if of_numbers else 'texts, such as ["a", "b"]'
            raise ValueError(f"expected a JSON list of {expected}") from exc
    if is_optional(hint):
        if text in ("null", "~"):
            return None
        bare = bare_type(next(part for part in get_args(hint) if part is not type(None)))
    if bare is float and text.strip().lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(text)  # rejected by name, with the rest
    return plain_scalar(text.strip()) if bare in (int, float, bool) else text


def _write(tree: Tree, target: OverrideTarget, value: Value) -> None:
    """Set the field, creating sections as needed. Raise ValueError if the file has a different type of value there."""
    inside = tree
    path = ""
    for key in target.keys[:-1]:
        path = child_path(path, key)
        if inside.get(key) is None:
            inside[key] = {}
        deeper = inside[key]
        if not isinstance(deeper, dict):
            raise ValueError(f"can't be applied: {path} holds no settings")  # noqa: TRY004 - shown to operators
        inside = deeper
    inside[target.keys[-1]] = value
