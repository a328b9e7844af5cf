"""An OpenAPI document, boiled down to what matters to this client: operations, and the fields that go to and fro. Pure.

A summary is plain JSON:

    {"version": "2.0.0",
     "api": {"server": "https://...", "security": "http bearer"},
     "operations": {"createPod": {"call": "POST /v2/pods", "parameters": {"?query": "...", "^header": "..."},
                                  "request": "...", "answers": {"201": "..."}, "refusal": "..."}},
     "others": {"listClusters": "GET /v2/clusters"},
     "requests": {"CreatePodRequest": {"name": "string, required", "disk minimum": "1", ...}},
     "answers": {"Pod": {...}},
     "refusals": {"ErrorResponse": {...}}}

Types are words: `string`, `integer|null`, `[Pod]` for a list, `{string}` for a map, `one of COMMUNITY / SECURE`
(sorted) for a choice, the name of another schema. A schema that others extend is told as a part of these. Limits stand
apart, named after the field and one of ASPECTS; those of answers do not matter.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from builder.errors import BadAnswerError

__all__ = ["ASPECTS", "operations", "summarise"]

METHODS = ("get", "put", "post", "delete", "patch")
MAX_DEPTH = 12
"""Nesting beyond this is no document of ours."""
_LIMITS = ("minimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "pattern", "default")
ASPECTS = (*_LIMITS, "format", "deprecated")
"""What is told of a field or parameter besides its type."""
_Doc = Mapping[str, Any]


def operations(document: _Doc) -> Iterator[tuple[str, str, str, _Doc]]:
    """Operation id, method, path and the operation itself, for each. Raises BadAnswerError if it is no OpenAPI."""
    paths = document.get("paths")
    if not isinstance(paths, Mapping) or "openapi" not in document:
        raise BadAnswerError("this is no OpenAPI document: it has no paths", hint="give the JSON form of version 3")
    for path, item in paths.items():
        for method in METHODS:
            operation = item.get(method) if isinstance(item, Mapping) else None
            if isinstance(operation, Mapping):
                name = str(operation.get("operationId", f"{method} {path}"))
                shared = {"parameters": [*(item.get("parameters") or ()), *(operation.get("parameters") or ())]}
                yield name, method.upper(), str(path), {**operation, **shared}


def summarise(document: _Doc, used: Collection[str]) -> dict[str, Any]:
    """The summary of `document`, with details of the operations in `used` only. Raises BadAnswerError."""
    reader = _Reader(document)
    detailed: dict[str, Any] = {}
    others: dict[str, str] = {}
    try:
        for name, method, path, operation in operations(document):
            if name in used:
                detailed[name] = {"call": f"{method} {path}", **reader.operation(operation)}
            else:
                others[name] = f"{method} {path}"
        return {
            "version": str((document.get("info") or {}).get("version", "")),
            "api": reader.api(),
            "operations": detailed,
            "others": others,
            **{f"{part}s": reader.schemas(part) for part in ("request", "answer", "refusal")},
        }
    except (AttributeError, TypeError, KeyError, RecursionError) as error:
        raise BadAnswerError(f"this OpenAPI document cannot be understood ({type(error).__name__})") from None


def _json_schema(body: _Doc) -> _Doc:
    content = body.get("content") or {}
    for kind in ("application/json", "text/event-stream", "application/problem+json"):
        if kind in content:
            schema: _Doc = content[kind].get("schema") or {}
            return schema
    return {}


class _Reader:
    """Follows the references of one document; `operation` also notes where those of its schemas begin."""

    def __init__(self, document: _Doc) -> None:
        self._document = document
        self._roots: dict[str, list[_Doc]] = {"request": [], "answer": [], "refusal": []}

    def resolve(self, node: _Doc) -> _Doc:
        """`node`, or what it refers to."""
        for _ in range(MAX_DEPTH):
            reference = node.get("$ref")
            if reference is None:
                return node
            target: Any = self._document
            for part in str(reference).removeprefix("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            node = target
        raise KeyError("references go round in a circle")

    def api(self) -> dict[str, str]:
        """Where the API is, and how a caller shows who it is."""
        schemes = (self._document.get("components") or {}).get("securitySchemes") or {}
        found = [
            " ".join(str(scheme[key]) for key in ("type", "scheme", "in", "name") if key in scheme)
            for scheme in map(self.resolve, schemes.values())
        ]
        servers = self._document.get("servers") or [{}]
        return {"server": str(servers[0].get("url", "")), "security": " or ".join(sorted(found))}

    def operation(self, operation: _Doc) -> dict[str, Any]:
        """One operation that is used."""
        request = _json_schema(self.resolve(operation.get("requestBody") or {}))
        answers: dict[str, str] = {}
        refusals = set()
        for status, answer in (operation.get("responses") or {}).items():
            schema = _json_schema(self.resolve(answer))
            is_good = str(status).startswith("2")
            self._roots["answer" if is_good else "refusal"].append(schema)
            if is_good:
                answers[str(status)] = self.word(schema)
            else:
                refusals.add(self.word(schema))
        self._roots["request"].append(request)
        parameters = dict(self._parameters(operation))
        said = {"parameters": parameters, "request": self.word(request), "answers": answers}
        notes = {"deprecated": "yes"} if operation.get("deprecated") else {}
        return {**said, "refusal": " or ".join(sorted(refusals)), **notes}

    def _parameters(self, operation: _Doc) -> Iterator[tuple[str, str]]:
        for each in operation["parameters"]:
            parameter = self.resolve(each)
            sign = {"query": "?", "header": "^"}.get(parameter.get("in", ""))
            if sign is not None:
                name, schema = f"{sign}{parameter['name']}", parameter.get("schema") or {}
                self._roots["request"].append(schema)
                yield name, self.word(schema) + _required(bool(parameter.get("required")))
                yield from self._aspects(name, schema, ASPECTS)

    def word(self, schema: _Doc, depth: int = 0) -> str:
        """The type in words."""
        if "$ref" in schema:
            return str(schema["$ref"]).rpartition("/")[2]
        if depth > MAX_DEPTH:
            raise KeyError("nested too deeply")
        if "enum" in schema:
            return "one of " + " / ".join(sorted(str(value) for value in schema["enum"]))
        for key, between in (("allOf", " and "), ("oneOf", " or "), ("anyOf", " or ")):
            if schema.get(key):
                return between.join(self.word(part, depth + 1) for part in schema[key])
        kind = schema.get("type", "object" if "properties" in schema else "any")
        if kind == "array":
            return f"[{self.word(schema.get('items') or {}, depth + 1)}]"
        if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            return f"{{{self.word(schema['additionalProperties'], depth + 1)}}}"
        return "|".join(str(each) for each in kind) if isinstance(kind, list) else str(kind)

    def schemas(self, part: str) -> dict[str, dict[str, str]]:
        """Every named schema that a part's roots lead to, with its fields; a choice has one field named `is`."""
        aspects = ASPECTS if part == "request" else ("format", "deprecated")
        found: dict[str, dict[str, str]] = {}
        waiting = list(_references(self._roots[part]))
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            schema = self._document["components"]["schemas"][name]
            fields = dict(sorted(self._fields(schema, "", aspects)))
            found[name] = fields or {"is": self.word(schema), **dict(self._aspects("is", schema, aspects))}
            for each in self._parts(schema):
                own = {key: value for key, value in each.items() if key != "allOf"}
                waiting.extend(_references(own if fields else each))
        return dict(sorted(found.items()))

    def _parts(self, schema: _Doc, depth: int = 0) -> Iterator[_Doc]:
        """`schema`, and all that it extends before it."""
        if depth > MAX_DEPTH:
            raise KeyError("nested too deeply")
        for part in schema.get("allOf") or ():
            yield from self._parts(self.resolve(part), depth + 1)
        yield schema

    def _fields(self, schema: _Doc, prefix: str, aspects: Collection[str]) -> Iterator[tuple[str, str]]:
        """Fields with dotted names for those of unnamed objects inside."""
        if prefix.count(".") > MAX_DEPTH:
            raise KeyError("nested too deeply")
        parts = list(self._parts(schema))
        # One part may insist on a field that another describes.
        required = {name for part in parts for name in part.get("required") or ()}
        for part in parts:
            for last, field in (part.get("properties") or {}).items():
                name = prefix + last
                yield name, self.word(field) + _required(last in required)
                yield from self._aspects(name, field, aspects)
                if "properties" in field:
                    yield from self._fields(field, f"{name}.", aspects)
                elif isinstance(field.get("items"), Mapping) and "properties" in field["items"]:
                    yield from self._fields(field["items"], f"{name}[].", aspects)

    def _aspects(self, name: str, schema: _Doc, aspects: Collection[str]) -> Iterator[tuple[str, str]]:
        for aspect in aspects:
            if aspect in schema:
                yield f"{name} {aspect}", str(schema[aspect])
        if isinstance(schema.get("items"), Mapping):
            yield from self._aspects(f"{name}[]", schema["items"], aspects)


def _required(is_required: bool) -> str:
    return ", required" if is_required else ""


def _references(node: object) -> Iterator[str]:
    """Names of the schemas that stand anywhere below `node`."""
    if isinstance(node, Mapping):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/components/schemas/"):
            yield reference.rpartition("/")[2]
        for key, value in node.items():
            if key not in ("example", "examples", "description"):
                yield from _references(value)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)
