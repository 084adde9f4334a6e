"""The example configuration is complete and correct, and every setting has an effect."""

import ast
import re
from pathlib import Path

import msgspec
import pytest

from service.configuration import load
from service.settings import AppSettings, CallerSettings, ServiceAccountSettings, Settings

TOP = Path(__file__).parents[3]
EXAMPLE = TOP / "docs" / "taskgate.example.yaml"
_LINE = re.compile(r"^#? *(?:# )?([a-z0-9_]+):(?: ([^#\n]*[^# \n]))?", re.MULTILINE)
SECTIONS = [AppSettings, CallerSettings, ServiceAccountSettings] + [
    field.type for field in msgspec.structs.fields(Settings) if isinstance(field.type, type)
]


def written(section: type[msgspec.Struct]) -> dict[str, str | None]:
    """Return the keys and values of a section of the example, including commented-out ones."""
    names = {AppSettings: "apps", CallerSettings: "callers", ServiceAccountSettings: "service_accounts"}
    name = names.get(section) or next(f.name for f in msgspec.structs.fields(Settings) if f.type is section)
    text = EXAMPLE.read_text()
    block = re.search(rf"^(?:# )?{name}:.*\n((?:#?  .*\n|\n)*)", text, re.MULTILINE)
    assert block, name
    return dict(_LINE.findall(block[1]))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_example_names_every_setting_with_its_default(section: type[msgspec.Struct]) -> None:
    """Each field of each struct is in the example, and one with a non-empty default has that value."""
    there = written(section)
    for field in msgspec.structs.fields(section):
        assert field.name in there, f"{section.__name__}.{field.name} is not in the example"
        if field.default not in (msgspec.NODEFAULT, None, ()):
            value = there[field.name]
            default = list(field.default) if isinstance(field.default, tuple) else field.default
            expected = str(default).lower() if isinstance(default, bool) else str(default)
            assert value == expected, f"{section.__name__}.{field.name}"


def test_every_setting_is_read() -> None:
    """Each field of each section is read, by its name, somewhere in the service."""
    read = {
        node.attr
        for file in (TOP / "service").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    names = {field.name for section in SECTIONS for field in msgspec.structs.fields(section)}
    assert names - read == set()


def test_the_example_is_accepted() -> None:
    """The example loads without a warning, and its values are the defaults."""
    loaded = load(EXAMPLE, {"SHOP_SECRET": "0123"})
    assert loaded.warnings == ()
    for field in msgspec.structs.fields(Settings):
        if field.default is not msgspec.NODEFAULT:
            assert getattr(loaded.settings, field.name) == field.default
