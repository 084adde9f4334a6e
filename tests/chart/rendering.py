"""Render the chart with Helm's own code, and parse the output."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import msgspec
import yaml

CHART = Path(__file__).resolve().parents[2] / "helm"
Object = dict[str, Any]
Values = dict[str, Any]

KEY = "0" * 64
LEAST: Values = {
    "config": {
        "apps": {"shop": {"sdkappid": 1400000000, "admin": "administrator"}},
        "callers": {"reports": {"keys": [KEY], "apps": ["shop"]}},
        "redis": {"url": "redis://redis.data:6379/0"},
    },
    "secrets": {"apps": {"shop": {"name": "taskgate-apps", "key": "shop"}}},
}
"""The fewest values that can be installed."""
GONE = object()
"""In a patch: omit this value."""


class Rendered(msgspec.Struct, frozen=True, kw_only=True):
    """The chart's output for some values."""

    objects: tuple[Object, ...]
    notes: str

    def one(self, kind: str, name: str = "tg-taskgate") -> Object:
        """The object of this kind and name."""
        found = [made for made in self.objects if (made["kind"], made["metadata"]["name"]) == (kind, name)]
        assert len(found) == 1, f"{len(found)} of {kind} {name}"
        return found[0]

    def kinds(self) -> set[str]:
        """All kinds."""
        return {made["kind"] for made in self.objects}

    @property
    def pod(self) -> Object:
        """The gateway's pod template."""
        template: Object = self.one("Deployment")["spec"]["template"]
        return template

    @property
    def container(self) -> Object:
        """The gateway's container."""
        container: Object = self.pod["spec"]["containers"][0]
        return container

    @property
    def config(self) -> str:
        """taskgate.yaml."""
        text: str = self.one("ConfigMap")["data"]["taskgate.yaml"]
        return text


def render(*patches: Values, release: str = "tg") -> Rendered:
    """Return the objects made of LEAST with the patches over it, hooks too. Raise helm_python.HelmError."""
    files = texts(*patches, release=release)
    notes = files.pop("taskgate/templates/NOTES.txt")
    return Rendered(objects=tuple(made for text in files.values() for made in objects(text)), notes=notes)


def texts(*patches: Values, release: str = "tg") -> dict[str, str]:
    """Render each template with LEAST and these patches. Raise helm_python.HelmError."""
    return dict(_texts(json.dumps(merged(*patches)), release))


@cache
def _texts(values: str, release: str) -> dict[str, str]:
    """Render each template with these values; many tests look at the same ones."""
    with helm_python.Chart.load(CHART) as chart:
        return chart.render(json.loads(values), name=release, namespace="prod")


def objects(text: str) -> list[Object]:
    """Return the objects of a YAML text; a repeated key is an error."""
    return [made for made in yaml.load_all(text, Loader=_Strict) if made]


def merged(*patches: Values, onto: Values = LEAST) -> Values:
    """Return `onto` with the patches applied: objects are merged, GONE removes a member, other values are replaced."""
    result = dict(onto)
    for patch in patches:
        for name, value in patch.items():
            before = result.get(name, {})
            both = isinstance(before, dict) and isinstance(value, dict)
            result[name] = merged(value, onto=before) if both else value
    return {name: value for name, value in result.items() if value is not GONE}


class _Strict(yaml.CSafeLoader):
    """Rejects duplicate keys, which other loaders ignore."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"a key stands twice: {sorted(keys)}"
        return super().construct_mapping(node, deep)
