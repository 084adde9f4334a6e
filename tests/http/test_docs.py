"""The contract and its page: committed, complete, consistent with the responses, and free of external requests."""

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

import service.web
from service.model.queries import parse_moment
from service.web.openapi.document import openapi_document
from service.web.openapi.operations import paths
from service.web.parameters import MOMENT_PATTERN, task_parameters
from service.web.problems.types import PROBLEM_TYPES
from service.web.settings import default_web_settings
from tests.http.site import Web

COMMITTED = Path(__file__).parents[2] / "openapi" / "openapi.json"
MOMENTS = (
    *("2025-05-01", "2025-05-01T08:00:00Z", "2025-05-01t08:00:60z", "2025-05-01 08:00:00.123456789+02:00"),
    *("-P7D", "+P1W", "P1W2D", "PT0S", "P1DT12H", "-P2W3DT4H5M6S", "PT12345678M", "P999999D", "now"),
)
NO_MOMENTS = (
    *("", "P", "-P", "PT", "P1DT", "P1M", "P1Y", "P1D2W", "P1.5D", "P1234567D", "PT1234567890S", "p1d", "7D", "NOW"),
    *("2025-05-01T08:00:00", "2025-5-1", "2025-05-01T08:00Z", "2025-05-01T08:00:00.Z", " 2025-05-01", "-P7D\t"),
    *("2025-05-01T08:00:00.1234567890Z", "\u0662025-05-01"),
)
UNDOCUMENTED = {"/", "/page/{name}", "/docs", "/docs/{name}", "/favicon.ico"}


@pytest.fixture
def document() -> dict[str, Any]:
    """The contract, decoded."""
    decoded: dict[str, Any] = json.loads(openapi_document())
    return decoded


def resolved(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """Return an operation's responses by status, with shared ones resolved."""
    shared = document["components"]["responses"]
    return {
        status: shared[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
        for status, response in operation["responses"].items()
    }


def references(part: object) -> set[str]:
    """Return all references in a part of the contract."""
    if isinstance(part, dict):
        own = {part["$ref"]} if "$ref" in part else set()
        return own.union(*(references(each) for each in part.values()))
    if isinstance(part, list):
        return set().union(*(references(each) for each in part))
    return set()


def test_committed_contract_is_current(document: dict[str, Any]) -> None:
    """The committed contract is the generated one; `make openapi` rewrites it. Only its version may lag."""
    committed = json.loads(COMMITTED.read_bytes())
    committed["info"]["version"] = document["info"]["version"]
    assert committed == document
    assert COMMITTED.read_bytes().endswith(b"}\n")
    assert openapi_document() == openapi_document()


def test_references_resolve(document: dict[str, Any]) -> None:
    """Every reference resolves, and every component is referenced."""
    components = {
        f"#/components/{kind}/{name}"
        for kind, members in document["components"].items()
        for name in members
        if kind != "securitySchemes"
    }
    assert references(document) - components == set()
    assert components - references(document) == set()


async def test_contract_has_all_routes(web: Web, document: dict[str, Any]) -> None:
    """Every route is in the contract, except those for people, and the contract has no others."""
    routes = {route.path.replace(":str", "") for route in web.app.app.routes}
    assert set(document["paths"]) == routes - UNDOCUMENTED


def test_each_operation_has_a_name_texts_and_problems(document: dict[str, Any]) -> None:
    """Each operation has a unique name that makes a method name, texts, and a problem for each possible failure."""
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert re.fullmatch("[a-z]+([A-Z][a-z]+)+", operation["operationId"])
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"][0] in {tag["name"] for tag in document["tags"]}
        assert {"413", "414", "431", "500"} <= set(operation["responses"])
        for response in resolved(document, operation).values():
            assert response["description"]
            assert "X-Request-Id" in response["headers"]


def test_the_contract_has_the_parameters_that_are_read() -> None:
    """The query parameters in the contract are those that are read, with the same bounds."""
    documented = [each for each in paths()["/tasks"]["get"]["parameters"] if each.get("in") == "query"]
    table = task_parameters(default_web_settings())
    assert [each["name"] for each in documented] == [parameter.name for parameter in table]
    for parameter in table:
        for example in parameter.examples:
            parameter.read(str(example.value))
        schema = parameter.schema
        if "maximum" in schema:
            assert parameter.read(str(schema["maximum"])) == schema["maximum"]
            with pytest.raises(ValueError, match="must be"):
                parameter.read(str(schema["maximum"] + 1))
        if "default" in schema:
            parameter.read(str(schema["default"]))


@pytest.mark.parametrize("text", [*MOMENTS, *NO_MOMENTS])
def test_the_pattern_of_moments_matches_what_can_be_parsed(text: str) -> None:
    """The pattern of moments matches all that can be parsed; otherwise only what the calendar refuses."""
    assert (re.search(MOMENT_PATTERN, text) is not None) == (text not in NO_MOMENTS)
    if text in NO_MOMENTS:
        with pytest.raises(ValueError, match=r"neither an instant|needs an offset"):
            parse_moment(text)
    else:
        parse_moment(text)


def test_every_problem_is_documented(document: dict[str, Any]) -> None:
    """Each problem type appears with an example under its status, except those that no documented answer has."""
    found = {}
    for path in document["paths"].values():
        for status, response in resolved(document, next(iter(path.values()))).items():
            for slug in response.get("content", {}).get("application/problem+json", {}).get("examples", {}):
                example = document["components"]["examples"][slug]
                found[slug] = (int(status), example["value"]["type"])
    assert set(document["components"]["examples"]) == set(found)
    expected = {slug: (kind.status, f"/problems/{slug}") for slug, kind in PROBLEM_TYPES.items()}
    elsewhere = ("method-not-allowed", "stream-too-long")  # of no route; in a stream's last line alone
    assert found == {slug: problem for slug, problem in expected.items() if slug not in elsewhere}


async def test_answers_have_the_documented_fields(web: Web, document: dict[str, Any]) -> None:
    """No answer carries a field that the contract does not name."""
    stream = {"Accept": "application/x-ndjson"}
    asked: list[tuple[str, int, dict[str, str]]] = [
        ("/tasks", 200, {}),
        ("/tasks", 200, stream),
        ("/tasks?limit=x", 400, {}),
        ("/tasks?limit=5", 400, stream),
        ("/tasks", 406, {"Accept": "text/html"}),
        ("/apps", 200, {}),
        ("/readyz", 200, {}),
    ]
    for path, status, headers in asked:
        answer = await web.get(path, headers={"Prefer": "wait=1"} | headers)
        assert answer.status_code == status
        response = resolved(document, document["paths"][path.partition("?")[0]]["get"])[str(status)]
        extra = {name.lower() for name in answer.headers} - {name.lower() for name in response["headers"]}
        assert extra <= {"content-type", "content-length"}
        assert answer.headers["content-type"] in response["content"]


async def test_page_has_the_documented_members(web: Web, document: dict[str, Any]) -> None:
    """A page has the members of its schema in their order."""
    assert list((await web.get()).json()) == list(document["components"]["schemas"]["Page"]["properties"])


async def test_contract_is_served(web: Web) -> None:
    """`/openapi.json` is the contract, and is not sent again to a client that holds it."""
    answer = await web.client.get("/openapi.json")
    assert answer.content == openapi_document()
    again = await web.client.get("/openapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_docs_load_nothing_from_elsewhere(web: Web) -> None:
    """The page names nothing of another origin, everything that it loads exists, and its policy forbids the rest."""
    page = await web.client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy
    assert "//" not in page.text.replace("<!doctype html>", "")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 5
    for name in loaded:
        part = await web.client.get(f"/{name}")
        assert part.status_code == 200
        assert part.headers["x-content-type-options"] == "nosniff"
    start = (await web.client.get("/docs/start.js")).text
    assert "://" not in start
    for option in ("persistAuth: false", "telemetry: false", "withDefaultFonts: false", "disabled: true"):
        assert option in start
    icon = await web.client.get("/favicon.ico")
    assert icon.headers["content-type"] == "image/svg+xml"


def test_scalar_is_the_pinned_one() -> None:
    """The committed script has the pinned hash, and its licence is beside it."""
    folder = Path(service.web.__path__[0]) / "docs"
    pin = json.loads((folder / "scalar.json").read_bytes())
    script = gzip.decompress((folder / "scalar.js.gz").read_bytes())
    assert hashlib.sha256(script).hexdigest() == pin["sha256"]
    assert b"createApiReference" in script
    assert (folder / "scalar.LICENSE").read_text().startswith("MIT License")


def test_task_example_reads_back(document: dict[str, Any]) -> None:
    """The example of a page has every documented member of a task."""
    example = document["paths"]["/tasks"]["get"]["responses"]["200"]["content"]["application/json"]["example"]
    schema = document["components"]["schemas"]["Task"]
    assert list(example["tasks"][0]) == list(schema["properties"])
    assert set(schema["required"]) == set(schema["properties"])
    msgspec.json.encode(example)


async def test_docs_with_a_slash_redirect(web: Web) -> None:
    """The page's references are relative: with a trailing slash in the path they would lead nowhere."""
    async with web.on_a_socket() as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/docs/", "/docs/?x=1"):
            answer = await client.get(path)
            assert answer.status_code == 308
            assert answer.next_request is not None
            assert answer.next_request.url.path == "/docs"
        assert (await client.get("/docs?x=/")).status_code == 200
