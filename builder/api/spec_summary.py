"""An OpenAPI document, boiled down to what matters to this client: operations, and the fields that go to and fro. Pure.

A summary is plain JSON:

    {"version": "2.0.0",
     "operations": {"createPod": {"call": "POST /v2/pods", "query": {...}, "request": "...", "answers": {...}}},
     "others": {"listClusters": "GET /v2/clusters"},
     "requests": {"CreatePodRequest": {"name": "string, required", ...}},
     "answers": {"Pod": {...}}}

Types are words: `string`, `integer|null`, `[Pod]` for a list, `{string}` for a map, `SECURE / COMMUNITY` for a choice,
the name of another schema.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from builder.errors import BadAnswerError

__all__ = ["operations", "summarise"]

METHODS = ("get", "put", "post", "delete", "patch")
MAX_DEPTH = 12
"""Nesting beyond this is no document of ours."""
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
                yield str(operation.get("operationId", f"{method} {path}")), method.upper(), str(path), operation


def summarise(document: _Doc, used: Collection[str]) -> dict[str, Any]:
    """The summary of `document`, with details of the operations in `used` only. Raises BadAnswerError."""
    reader = _Reader(document)
    detailed: dict[str, Any] = {}
    others: dict[str, str] = {}
    request_roots: list[_Doc] = []
    answer_roots: list[_Doc] = []
    try:
        for name, method, path, operation in operations(document):
            if name not in used:
                others[name] = f"{method} {path}"
                continue
            request = _json_schema(reader.resolve(operation.get("requestBody") or {}))
            answers = {
                str(status): _json_schema(reader.resolve(answer))
                for status, answer in (operation.get("responses") or {}).items()
                if str(status).startswith("2")
            }
            request_roots += [request]
            answer_roots += list(answers.values())
            detailed[name] = {
                "call": f"{method} {path}",
                "query": reader.query(operation),
                "request": reader.word(request),
                "answers": {status: reader.word(schema) for status, schema in answers.items()},
            }
        version = str((document.get("info") or {}).get("version", ""))
        parts = {"requests": reader.schemas(request_roots), "answers": reader.schemas(answer_roots)}
    except (AttributeError, TypeError, KeyError, RecursionError) as error:
        raise BadAnswerError(f"this OpenAPI document cannot be understood ({type(error).__name__})") from None
    return {"version": version, "operations": detailed, "others": others, **parts}


def _json_schema(body: _Doc) -> _Doc:
    content = body.get("content") or {}
    for kind in ("application/json", "text/event-stream"):
        if kind in content:
            schema: _Doc = content[kind].get("schema") or {}
            return schema
    return {}


class _Reader:
    """Follows the references of one document."""

    def __init__(self, document: _Doc) -> None:
        self._document = document

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

    def query(self, operation: _Doc) -> dict[str, str]:
        """Query parameters and their types."""
        found = {}
        for each in operation.get("parameters") or ():
            parameter = self.resolve(each)
            if parameter.get("in") == "query":
                found[str(parameter["name"])] = self.word(parameter.get("schema") or {}) + _required(
                    bool(parameter.get("required"))
                )
        return dict(sorted(found.items()))

    def word(self, schema: _Doc, depth: int = 0) -> str:
        """The type in words."""
        if "$ref" in schema:
            return str(schema["$ref"]).rpartition("/")[2]
        if depth > MAX_DEPTH:
            raise KeyError("nested too deeply")
        if "enum" in schema:
            return " / ".join(str(value) for value in schema["enum"])
        for key, between in (("allOf", " and "), ("oneOf", " or "), ("anyOf", " or ")):
            if schema.get(key):
                return between.join(self.word(part, depth + 1) for part in schema[key])
        kind = schema.get("type", "object" if "properties" in schema else "any")
        if kind == "array":
            return f"[{self.word(schema.get('items') or {}, depth + 1)}]"
        if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
            return f"{{{self.word(schema['additionalProperties'], depth + 1)}}}"
        return "|".join(str(each) for each in kind) if isinstance(kind, list) else str(kind)

    def schemas(self, roots: Iterable[_Doc]) -> dict[str, dict[str, str]]:
        """Every named schema that the roots lead to, with its fields; a choice has one field named `is`."""
        found: dict[str, dict[str, str]] = {}
        waiting = [name for root in roots for name in _references(root)]
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            schema = self._document["components"]["schemas"][name]
            found[name] = dict(sorted(self._fields(schema, "", 0))) or {"is": self.word(schema)}
            waiting.extend(_references(schema))
        return dict(sorted(found.items()))

    def _fields(self, schema: _Doc, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
        """Fields with dotted names for those of unnamed objects inside."""
        if depth > MAX_DEPTH:
            raise KeyError("nested too deeply")
        for part in schema.get("allOf") or ():
            yield from self._fields(self.resolve(part), prefix, depth + 1)
        required = schema.get("required") or ()
        for name, field in (schema.get("properties") or {}).items():
            yield prefix + name, self.word(field) + _required(name in required)
            if "properties" in field:
                yield from self._fields(field, f"{prefix}{name}.", depth + 1)
            elif isinstance(field.get("items"), Mapping) and "properties" in field["items"]:
                yield from self._fields(field["items"], f"{prefix}{name}[].", depth + 1)


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
