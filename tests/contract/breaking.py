"""What of a new contract breaks those who call by the old one, or compile against a client generated from it."""

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any

Json = dict[str, Any]

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
EXACT = ("format", "pattern", "multipleOf", "uniqueItems", "allOf", "not", "if", "then", "else", "prefixItems")
UNION = ("oneOf", "anyOf")


class Way(Enum):
    """What a schema describes: what callers send, or what they get."""

    SENT = "sent"
    GOT = "got"


class Comparison:
    """Two whole contracts, decoded."""

    def __init__(self, old: Json, new: Json) -> None:
        self.old, self.new = old, new
        self._compared: set[tuple[str, str, Way]] = set()

    def breaks(self) -> Iterator[str]:
        """Each thing that breaks a caller, with where it is."""
        for name in sorted(_components(self.old) - _components(self.new)):
            yield f"schema {name} is gone"
        for path, old_item in self.old["paths"].items():
            for method in METHODS:
                if method not in old_item:
                    continue
                where = f"{method.upper()} {path}"
                new = self.new["paths"].get(path, {}).get(method)
                if new is None:
                    yield f"{where} is gone"
                else:
                    yield from self._operation(where, old_item[method], new)

    def _operation(self, where: str, old: Json, new: Json) -> Iterator[str]:
        for name in ("operationId", "tags"):
            if old.get(name) != new.get(name):
                yield f"{where}: {name} was {old.get(name)}, is {new.get(name)}: generated clients call it otherwise"
        allowed, allows = (
            each.get("security", whole.get("security", [])) or [{}]
            for each, whole in ((old, self.old), (new, self.new))
        )
        if {} not in allows and any(way not in allows for way in allowed):
            yield f"{where}: what authorized a request does so no longer"
        yield from self._parameters(where, old, new)
        yield from self._body(where, self._of_old(old.get("requestBody", {})), self._of_new(new.get("requestBody", {})))
        for status, response in old["responses"].items():
            there = f"{where} {status}"
            if status in new["responses"]:
                yield from self._response(there, self._of_old(response), self._of_new(new["responses"][status]))
            elif status < "4":
                yield f"{there} is gone"

    def _parameters(self, where: str, old: Json, new: Json) -> Iterator[str]:
        olds = {(each["in"], each["name"]): each for each in map(self._of_old, old.get("parameters", []))}
        news = {(each["in"], each["name"]): each for each in map(self._of_new, new.get("parameters", []))}
        for key, parameter in news.items():
            if parameter.get("required") and not olds.get(key, {}).get("required"):
                yield f"{where}: {key[0]} parameter {key[1]} is required now"
        for key, parameter in olds.items():
            there = f"{where}: {key[0]} parameter {key[1]}"
            if key not in news:
                yield f"{there} is gone"
            else:
                yield from self._schema(there, parameter["schema"], news[key]["schema"], Way.SENT)

    def _body(self, where: str, old: Json, new: Json) -> Iterator[str]:
        if new.get("required") and not old.get("required"):
            yield f"{where}: a body is required now"
        yield from self._content(f"{where}: body", old, new, Way.SENT)

    def _response(self, where: str, old: Json, new: Json) -> Iterator[str]:
        for name, header in old.get("headers", {}).items():
            before, there = self._of_old(header), f"{where}: header {name}"
            if name not in new.get("headers", {}):
                yield f"{there} is gone"
                continue
            after = self._of_new(new["headers"][name])
            if before.get("required") and not after.get("required"):
                yield f"{there} may be left out now"
            yield from self._schema(there, before["schema"], after["schema"], Way.GOT)
        yield from self._content(where, old, new, Way.GOT)

    def _content(self, where: str, old: Json, new: Json, way: Way) -> Iterator[str]:
        for media_type, content in old.get("content", {}).items():
            if media_type not in new.get("content", {}):
                yield f"{where}: {media_type} is gone"
            else:
                after = new["content"][media_type].get("schema", {})
                yield from self._schema(f"{where}:", content.get("schema", {}), after, way)

    def _schema(self, where: str, old: Json, new: Json, way: Way) -> Iterator[str]:
        """Sent: what the old one lets pass and the new one refuses. Got: what the new one brings that was not known."""
        pair = (json.dumps(old, sort_keys=True), json.dumps(new, sort_keys=True), way)
        if "$ref" in old and pair in self._compared:
            return
        self._compared.add(pair)
        old, new = self._of_old(old), self._of_new(new)
        lost = set(old.get("properties", {})) - set(new.get("properties", {}))
        yield from (f"{where} member {name} is gone" for name in sorted(lost))
        yield from (f"{where} value {value!r} is gone" for value in _values(old) - _values(new) if _values(new))
        for name in set(old.get("properties", {})) & set(new.get("properties", {})):
            yield from self._schema(f"{where} member {name}", old["properties"][name], new["properties"][name], way)
        for name in ("items", "additionalProperties"):
            if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
                yield from self._schema(f"{where} {name}", old[name], new[name], way)
            elif way is Way.SENT and name in new and name not in old:
                yield f"{where} is bounded by {name} now"
        if any(union in each for union in UNION for each in (old, new)):
            yield from self._union(where, old, new, way)
        narrow, wide = (new, old) if way is Way.SENT else (old, new)
        for reason in _permits_more(narrow, wide):
            yield f"{where} {'takes less' if way is Way.SENT else 'brings more'}: {reason}"

    def _union(self, where: str, old: Json, new: Json, way: Way) -> Iterator[str]:
        """Each branch of what is wider must fit one of what is narrower."""
        olds, news = _branches(old), _branches(new)
        for branch in olds if way is Way.SENT else news:
            others = news if way is Way.SENT else olds
            pairs = [(branch, other) if way is Way.SENT else (other, branch) for other in others]
            if not any(not list(Comparison(self.old, self.new)._schema(where, *pair, way)) for pair in pairs):
                yield f"{where}: no branch fits {json.dumps(branch)}"

    def _of_old(self, part: Json) -> Json:
        return _resolved(self.old, part)

    def _of_new(self, part: Json) -> Json:
        return _resolved(self.new, part)


def _permits_more(narrow: Json, wide: Json) -> Iterator[str]:
    """Why `wide` permits what `narrow` does not, members and branches aside."""
    if _types(narrow) and not (_types(wide) and _types(wide) <= _types(narrow)):
        yield f"type {wide.get('type', 'any')}, not {narrow['type']}"
    if _values(narrow) and not (_values(wide) and _values(wide) <= _values(narrow)):
        yield f"values {sorted(_values(wide), key=str) or 'any'}, not {sorted(_values(narrow), key=str)}"
    for name in LOWER:
        if name in narrow and wide.get(name, float("-inf")) < narrow[name]:
            yield f"{name} {wide.get(name)}, not {narrow[name]}"
    for name in UPPER:
        if name in narrow and wide.get(name, float("inf")) > narrow[name]:
            yield f"{name} {wide.get(name)}, not {narrow[name]}"
    for name in EXACT:
        if name in narrow and wide.get(name) != narrow[name]:
            yield f"{name} {wide.get(name)}, not {narrow[name]}"
    if narrow.get("additionalProperties") is False and wide.get("additionalProperties") is not False:
        yield "other members"
    for name in sorted(set(narrow.get("required", ())) - set(wide.get("required", ()))):
        yield f"without {name}"


def _types(schema: Json) -> set[str]:
    types = schema.get("type", [])
    named = {types} if isinstance(types, str) else set(types)
    return named | {"integer"} if "number" in named else named


def _values(schema: Json) -> set[Any]:
    return {schema["const"]} if "const" in schema else set(schema.get("enum", ()))


def _branches(schema: Json) -> list[Json]:
    return next((list(schema[union]) for union in UNION if union in schema), [schema])


def _components(contract: Json) -> set[str]:
    return set(contract.get("components", {}).get("schemas", {}))


def _resolved(contract: Json, part: Json) -> Json:
    """The part itself, or what it refers to, with what stands beside the reference."""
    while "$ref" in part:
        beside = {name: value for name, value in part.items() if name != "$ref"}
        target: Any = contract
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
        part = target | beside
    return part
