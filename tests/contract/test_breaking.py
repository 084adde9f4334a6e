"""The contract never breaks those who hold the last released one; and the comparison sees what would."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.breaking import Comparison, Json

OPENAPI = Path(__file__).parents[2] / "openapi"
PAGE: Json = {
    "type": "object",
    "properties": {
        "total": {"type": "integer", "minimum": 0},
        "note": {"type": ["string", "null"]},
        "sort": {"$ref": "#/components/schemas/Sort"},
        "pause": {"oneOf": [{"$ref": "#/components/schemas/Pause"}, {"type": "null"}]},
        "inner": {"type": "array", "items": {"$ref": "#/components/schemas/Page"}},
    },
    "required": ["total", "sort"],
}
OLD: Json = {
    "security": [{"key": []}],
    "paths": {
        "/tasks": {
            "get": {
                "operationId": "listTasks",
                "tags": ["Tasks"],
                "parameters": [
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
                    {"name": "sort", "in": "query", "schema": {"$ref": "#/components/schemas/Sort", "default": "a"}},
                    {"name": "q", "in": "query", "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": {
                        "headers": {"Link": {"required": True, "schema": {"type": "string"}}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Page"}}},
                    },
                    "304": {},
                    "404": {"content": {"application/problem+json": {"schema": {"type": "object"}}}},
                },
            }
        },
        "/livez": {"get": {"operationId": "getLiveness", "security": [], "responses": {"200": {}}}},
    },
    "components": {
        "schemas": {
            "Page": PAGE,
            "Pause": {"type": "object", "properties": {"s": {"type": "number"}}, "required": ["s"]},
            "Sort": {"type": "string", "enum": ["a", "b"]},
            "Spare": {},
        }
    },
}


def change(*steps: Any, **members: Any) -> Callable[[Json], None]:
    """Go along the steps and set these members there, or remove those that are None."""

    def apply(contract: Json) -> None:
        part: Any = contract
        for step in steps:
            part = part[step]
        for name, value in members.items():
            if value is None:
                del part[name]
            else:
                part[name] = value

    return apply


LIST = ("paths", "/tasks", "get")
LIMIT, SORT, Q = ((*LIST, "parameters", index) for index in range(3))
OK = (*LIST, "responses", "200")
SCHEMAS = ("components", "schemas")
MEMBERS = (*SCHEMAS, "Page", "properties")

BREAKS = [
    (change("paths", **{"/tasks": None}), "GET /tasks is gone"),
    (change("paths", "/tasks", get=None), "GET /tasks is gone"),
    (change(*LIST, operationId="tasks"), "operationId was listTasks, is tasks"),
    (change(*LIST, tags=["Pages"]), "tags was ['Tasks']"),
    (change("paths", "/livez", "get", security=None), "authorized"),
    (change(*LIST, security=[{"other": []}]), "authorized"),
    (change(*Q, name="query"), "query parameter q is gone"),
    (change(*Q, required=True), "query parameter q is required now"),
    (change(*Q, **{"in": "header"}), "query parameter q is gone"),
    (change(*Q, "schema", maxLength=10), "q takes less: maxLength"),
    (change(*Q, "schema", pattern="^a"), "q takes less: pattern"),
    (change(*Q, "schema", enum=["x"]), "q takes less: values any"),
    (change(*LIMIT, "schema", maximum=50), "limit takes less: maximum 100, not 50"),
    (change(*LIMIT, "schema", minimum=2), "limit takes less: minimum 1, not 2"),
    (change(*LIMIT, "schema", type="string"), "limit takes less: type integer"),
    (change(*SCHEMAS, "Sort", enum=["a"]), "sort value 'b' is gone"),
    (change(*SCHEMAS, "Sort", enum=["a", "b", "c"]), "member sort brings more: values"),
    (change(*LIST, requestBody={"required": True, "content": {}}), "a body is required now"),
    (change(*LIST, "responses", **{"304": None}), "304 is gone"),
    (change(*OK, content={"application/x-ndjson": {}}), "application/json is gone"),
    (change(*OK, "headers", Link=None), "header Link is gone"),
    (change(*OK, "headers", "Link", required=None), "header Link may be left out now"),
    (change(*MEMBERS, note=None), "member note is gone"),
    (change(*SCHEMAS, "Page", required=["total"]), "brings more: without sort"),
    (change(*MEMBERS, "total", type=["integer", "null"]), "member total brings more: type"),
    (change(*MEMBERS, "total", type="number"), "member total brings more: type number"),
    (change(*MEMBERS, "total", minimum=None), "member total brings more: minimum"),
    (change(*MEMBERS, "pause", oneOf=[{"type": "string"}, {"type": "null"}]), "no branch fits"),
    (change(*SCHEMAS, "Pause", required=[]), "no branch fits"),
    (change(*SCHEMAS, Spare=None), "schema Spare is gone"),
]
HARMLESS = [
    change("paths", **{"/new": {"get": {"operationId": "getNew", "responses": {"200": {}}}}}),
    change("paths", "/tasks", delete={"operationId": "dropTasks", "responses": {"204": {}}}),
    change(*LIST, summary="List tasks"),
    change(*LIST, security=[{"key": []}, {"other": []}]),
    change(*LIST, security=[]),
    change(*LIST, requestBody={"content": {}}),
    change(*LIST, "responses", **{"404": None, "503": {}}),
    change(*LIMIT, "schema", minimum=None),
    change(*LIMIT, "schema", maximum=200),
    change(*LIMIT, "schema", type="number"),
    change(*SORT, "schema", default="b"),
    change(*OK, "headers", Age={"schema": {"type": "integer"}}),
    change(*OK, "content", **{"application/x-ndjson": {}}),
    change(*MEMBERS, "total", minimum=1),
    change(*MEMBERS, extra={"type": "string"}),
    change(*MEMBERS, "note", type="string"),
    change(*MEMBERS, pause={"$ref": "#/components/schemas/Pause"}),
    change(*SCHEMAS, "Page", required=["total", "sort", "note"]),
]


def breaks(changed: Callable[[Json], None]) -> list[str]:
    """What the comparison finds after a change."""
    new = copy.deepcopy(OLD)
    changed(new)
    assert new != OLD
    return list(Comparison(OLD, new).breaks())


@pytest.mark.parametrize(("changed", "expected"), BREAKS, ids=[expected for _, expected in BREAKS])
def test_what_breaks(changed: Callable[[Json], None], expected: str) -> None:
    """This change breaks a caller, and the comparison says so."""
    assert any(expected in found for found in breaks(changed)), breaks(changed)


@pytest.mark.parametrize("changed", HARMLESS)
def test_what_does_not(changed: Callable[[Json], None]) -> None:
    """This change breaks nobody."""
    assert breaks(changed) == []


def test_the_same() -> None:
    """A contract does not break itself."""
    assert list(Comparison(OLD, OLD).breaks()) == []


def test_nothing_breaks() -> None:
    """Who calls by the last released contract can go on. A release copies openapi.json over released.json."""
    released, current = (json.loads((OPENAPI / name).read_bytes()) for name in ("released.json", "openapi.json"))
    assert list(Comparison(released, current).breaks()) == []
