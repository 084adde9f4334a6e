"""Generate the parts of the chart that derive from other files: `python -m tools.chart`, or `make chart`.

The part of values.schema.json below `config`, and files/settings.json for the templates, come from the gateway's
settings; the table of helm/README.md comes from the `# --` comments of values.yaml, the version in Chart.yaml from
service/__init__.py. Tests compare all of them with what is committed.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from service import __version__
from service.configuration.watch import LIVE
from service.settings import RedisSettings, Settings
from service.upstream.regions import REGION_NAMES

CHART = Path(__file__).resolve().parents[1] / "helm"
SCHEMA = CHART / "values.schema.json"
SETTINGS = CHART / "files" / "settings.json"
README = CHART / "README.md"
METADATA = CHART / "Chart.yaml"
_BEGIN, _END = "<!-- values: begin -->\n", "<!-- values: end -->\n"
_COMMENT = "# -- "
_KEY = re.compile(r"^( *)([A-Za-z0-9_]+):(?: |$)")


def schema() -> dict[str, Any]:
    """Return the committed schema with the current definitions of the settings."""
    made: dict[str, Any] = json.loads(SCHEMA.read_text())
    defs = {name: definition for name, definition in made["$defs"].items() if not name.endswith("Settings")}
    found = msgspec.json.schema(Settings)["$defs"]
    # Values need not hold what the chart can set; its templates refuse what is missing after that.
    found["Settings"].pop("required")
    found["Settings"]["properties"]["apps"].pop("minProperties")
    found["RedisSettings"].pop("required")
    return made | {"$defs": defs | {name: _plain(definition) for name, definition in sorted(found.items())}}


def settings() -> dict[str, Any]:
    """Return the settings' properties that templates need: defaults, regions, and what reloads without a restart."""
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    defaults: dict[str, Any] = {"apps": {}, "callers": {}, "redis": RedisSettings(url="")}
    defaults |= {name: field.default for name, field in fields.items() if not field.required}
    return {
        "defaults": json.loads(msgspec.json.encode({name: defaults[name] for name in fields})),
        "live": sorted(LIVE),
        "regions": list(REGION_NAMES),
    }


def _plain(node: Any) -> Any:
    """Drop defaults and titles, write patterns for Go, and "X or null" as a list of types, for clearer refusals."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "properties" in node:
        properties = {name: _plain(inner) for name, inner in node["properties"].items()}
        node = node | {"properties": properties}
    kept = {
        key: inner if key == "properties" else _plain(inner)
        for key, inner in node.items()
        if key not in ("default", "title")
    }
    if "pattern" in kept:
        kept["pattern"] = kept["pattern"].replace(r"\Z", "$")
    match kept.get("anyOf"):
        case [{"type": str(kind), **rest}, {"type": "null"}]:
            del kept["anyOf"]
            kept |= {"type": [kind, "null"], **rest}
    return kept


def table() -> str:
    """Return the values with their comments and defaults, as a Markdown table."""
    lines = ["| value | default | description |", "|---|---|---|"]
    for path, (comment, default) in described_values().items():
        shown = "" if default is None else f"`{json.dumps(default)}`"
        lines.append(f"| `{path}` | {shown.replace('|', chr(92) + '|')} | {comment} |")
    return "\n".join(lines) + "\n"


def described_values() -> dict[str, tuple[str, Any]]:
    """Return comment and default of each value that has a `# --` comment, by its path."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    found: dict[str, tuple[str, Any]] = {}
    keys: list[tuple[int, str]] = []
    comment = ""
    for line in (CHART / "values.yaml").read_text().splitlines():
        if line.strip().startswith(_COMMENT):
            comment = line.strip().removeprefix(_COMMENT)
        elif key := _KEY.match(line):
            keys = [(indent, name) for indent, name in keys if indent < len(key[1])] + [(len(key[1]), key[2])]
            path = ".".join(name for _, name in keys)
            if comment:
                found[path] = (comment, _at(values, path))
            comment = ""
    return found


def leaves(values: dict[str, Any], described_paths: set[str], path: str = "") -> list[str]:
    """Return the paths of values that need a comment: leaves, and what has one itself."""
    found: list[str] = []
    for name, value in values.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value and here not in described_paths:
            found += leaves(value, described_paths, here)
        else:
            found.append(here)
    return found


def readme() -> str:
    """Return the committed README.md with the current table."""
    before, _, rest = README.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + table() + _END + after


def metadata() -> str:
    """The committed Chart.yaml, with the gateway's version as its own and as that of the image."""
    return re.sub(r"(?m)^(version|appVersion): .*$", rf'\1: "{__version__}"', METADATA.read_text())


def _at(values: Any, path: str) -> Any:
    for name in path.split("."):
        values = values[name]
    return values


def main() -> None:
    """Write all four files."""
    SCHEMA.write_text(json.dumps(schema(), indent=2) + "\n")
    SETTINGS.write_text(json.dumps(settings(), indent=2) + "\n")
    README.write_text(readme())
    METADATA.write_text(metadata())


if __name__ == "__main__":
    main()
