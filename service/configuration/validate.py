"""Keys, types and bounds, from the structs of `service.settings`. Reports all faults; msgspec stops at the first."""

import difflib
import math
import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from service.configuration.errors import SettingFault
from service.configuration.yaml_file import Value

_SECRETS = ("secret", "password")


def shape_faults(value: Value, hint: Any, path: str) -> Iterator[SettingFault]:
    """Return the reasons why a value is not a `hint` (a struct, or the annotated type of a field); `path` is its
    location."""
    if is_union(bare_type(hint)):
        hint = _likely_member(value, hint)
    bare = bare_type(hint)
    origin = get_origin(bare)
    if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
        yield from _struct_faults(value, bare, path)
    elif origin is dict:
        yield from _dict_faults(value, hint, path)
    elif origin is tuple:
        yield from _tuple_faults(value, bare, path)
    else:
        yield from _leaf_faults(value, hint, path)


@cache
def struct_fields(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the annotated type of each field of a struct, by name."""
    hints = get_type_hints(struct, include_extras=True)
    return {field.name: hints[field.name] for field in msgspec.structs.fields(struct)}


def bare_type(hint: Any) -> Any:
    """Return the type without its `Annotated` metadata."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def child_path(path: str, key: str) -> str:
    """Return the path of `key` within `path`."""
    return f"{path}.{key}" if path else key


def _struct_faults(value: Value, struct: type[msgspec.Struct], path: str) -> Iterator[SettingFault]:
    if not isinstance(value, dict):
        yield SettingFault(path=path, text=f"expected keys and values, got {_type_name(value)}")
        return
    hints = struct_fields(struct)
    for key in value:
        if key not in hints:
            yield SettingFault(path=child_path(path, key), text=_unknown(key, tuple(hints)))
    for field in msgspec.structs.fields(struct):
        if field.name in value:
            yield from shape_faults(value[field.name], hints[field.name], child_path(path, field.name))
        elif field.required:
            yield SettingFault(path=child_path(path, field.name), text="is missing")


def _dict_faults(value: Value, hint: Any, path: str) -> Iterator[SettingFault]:
    if not isinstance(value, dict):
        yield SettingFault(path=path, text=f"expected names and their settings, got {_type_name(value)}")
        return
    key_hint, value_hint = get_args(bare_type(hint))
    if not value:
        yield from _leaf_faults(value, hint, path)
    for key, item in value.items():
        yield from _leaf_faults(key, key_hint, child_path(path, key))
        yield from shape_faults(item, value_hint, child_path(path, key))


def _tuple_faults(value: Value, bare: Any, path: str) -> Iterator[SettingFault]:
    if not isinstance(value, list):
        yield SettingFault(path=path, text=f"expected a list, got {_type_name(value)}")
        return
    for index, item in enumerate(value):
        yield from shape_faults(item, get_args(bare)[0], f"{path}[{index}]")


def _leaf_faults(value: Value, hint: Any, path: str) -> Iterator[SettingFault]:
    if isinstance(value, float) and not math.isfinite(value):
        yield SettingFault(path=path, text="is not a number (NaN)" if math.isnan(value) else "is infinite")
        return
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as exc:
        text = _expectation(value, hint) or _plain(str(exc))
        quote = bare_type(hint) is str and isinstance(value, bool | int | float)
        yield SettingFault(path=path, text=f"{text}; put it in quotes" if quote else text)


def _expectation(value: Value, hint: Any) -> str | None:
    """Return a clearer text than msgspec's, which quotes patterns, and quotes values if several are allowed."""
    bare = bare_type(hint)
    if get_origin(bare) is Literal:
        return f"expected one of {', '.join(map(str, get_args(bare)))}"
    if isinstance(value, str):
        parts = (hint, *get_args(bare)) if is_union(bare) else (hint,)
        for meta in [meta for part in parts for meta in getattr(part, "__metadata__", ())]:
            if isinstance(meta, msgspec.Meta) and meta.description:
                return f"expected {meta.description}"
    return None


def _plain(text: str) -> str:
    text = text.replace("`", "").replace(" | null", "")
    return text[:1].lower() + text[1:]


def _type_name(value: Value) -> str:
    """Return the type of a value, in msgspec's terms."""
    return (
        "null" if value is None else {"dict": "object", "list": "array"}.get(type(value).__name__, type(value).__name__)
    )


def _unknown(key: str, known: tuple[str, ...]) -> str:
    if key in _SECRETS:
        return f"secrets must not be in this file; name a file (`{key}_file`) or an environment variable (`{key}_env`)"
    if near := difflib.get_close_matches(key, known, n=1):
        return f"unknown key; did you mean {near[0]}?"
    return f"unknown key; known are {', '.join(known)}"


def is_union(hint: Any) -> bool:
    """Return whether a value may have several types."""
    return get_origin(hint) in (Union, types.UnionType)


def is_optional(hint: Any) -> bool:
    """Return whether the field accepts null."""
    return is_union(hint) and type(None) in get_args(hint)


def struct_in(hint: Any) -> type[msgspec.Struct] | None:
    """Return the struct that a value of this type is, or may be."""
    bare = bare_type(hint)
    for part in get_args(bare) if is_union(bare) else (bare,):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            return part
    return None


def _likely_member(value: Value, hint: Any) -> Any:
    """Return the union member that this value was most likely meant to be, so that faults are reported within it."""
    struct = struct_in(hint)
    if struct is None or (value is None and is_optional(hint)):
        return hint
    others = [part for part in get_args(bare_type(hint)) if part not in (struct, type(None))]
    return struct if isinstance(value, dict) or not others else others[0]
