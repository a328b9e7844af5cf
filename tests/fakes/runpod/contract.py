"""Holds every exchange of the journal against RunPod's OpenAPI document, both ways; absent where the document is.

The document is data that is not part of the repository: RUNPOD_OPENAPI_SPEC names it, or it lies beside the checkout.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.fakes.runpod.clock import parse_time
from tests.fakes.runpod.journal import Entry

__all__ = ["Contract", "document_path"]

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "runpod" / "openapi.v2.json"
METHODS = ("get", "put", "post", "patch", "delete")
BASE = "urn:openapi"


def document_path() -> Path | None:
    """Where the document is, if it is anywhere."""
    path = Path(os.environ.get("RUNPOD_OPENAPI_SPEC") or BESIDE)
    return path if path.is_file() else None


@functools.lru_cache(maxsize=2)
def _load(path: Path) -> Contract:
    return Contract(json.loads(path.read_text(encoding="utf-8")))


class Contract:
    """The document's operations; `violations` judges one exchange."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        from jsonschema import Draft202012Validator, FormatChecker
        from referencing import Registry, Resource
        from referencing.jsonschema import DRAFT202012

        self._document = document
        resource = Resource.from_contents(document, default_specification=DRAFT202012)
        self._registry = Registry().with_resource(BASE, resource)
        self._formats = FormatChecker(formats=())
        self._formats.checks("date-time", raises=ValueError)(_is_time)
        self._validator = Draft202012Validator
        self._validators: dict[str, Any] = {}
        self._paths = [
            (re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), path) for path in document["paths"]
        ]
        # A path without braces wins over one that fits by chance.
        self._paths.sort(key=lambda each: "{" in each[1])

    @staticmethod
    def found() -> Contract | None:
        """The one of this machine, read once."""
        path = document_path()
        return None if path is None else _load(path)

    def violations(self, entry: Entry) -> list[str]:
        """What is wrong with a request (unless meant to be) and with its answer (unless a fault made it)."""
        if not entry.path.startswith("/v2"):
            return []
        path = next((path for pattern, path in self._paths if pattern.fullmatch(entry.path)), None)
        item = {} if path is None else self._document["paths"][path]
        if path is None or entry.method.lower() not in item:
            return [] if entry.is_malformed else [f"request {entry.method} {entry.path}: not in the document"]
        where = f"{BASE}#/paths/{_escaped(path)}/{entry.method.lower()}"
        operation = item[entry.method.lower()]
        wrong: list[str] = []
        if not entry.is_malformed:
            parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
            wrong += [f"request: {text}" for text in self._query(entry, parameters)]
            wrong += [f"request: {text}" for text in self._body(entry, operation, where)]
        if entry.fault is None or entry.fault.endswith("slow"):
            wrong += [f"answer: {text}" for text in self._answer(entry, operation, where)]
        return [f"{entry.method} {entry.path} #{entry.number} {text}" for text in wrong]

    def _query(self, entry: Entry, parameters: list[Any]) -> Iterator[str]:
        resolved = [self._resolved(each) for each in parameters]
        known = {each["name"]: each for each in resolved if each["in"] == "query"}
        for name in sorted(set(entry.query) - set(known)):
            yield f"unknown query parameter {name!r}"
        for name, parameter in known.items():
            if name in entry.query:
                for text in self._value(parameter["schema"], entry.query[name]):
                    yield f"query parameter {name!r}: {text}"
            elif parameter.get("required"):
                yield f"query parameter {name!r} is missing"

    def _value(self, schema: Any, text: str) -> Iterator[str]:
        kind = self._resolved(schema).get("type")
        value: Any = text
        if kind == "array":
            value = text.split(",")
        elif kind == "integer" and re.fullmatch(r"-?\d+", text):
            value = int(text)
        elif kind == "boolean" and text in ("true", "false"):
            value = text == "true"
        yield from self._errors(_absolute(schema), value)

    def _body(self, entry: Entry, operation: Mapping[str, Any], where: str) -> Iterator[str]:
        declared = operation.get("requestBody")
        if declared is None:
            if entry.body is not None:
                yield "has a body, and none is allowed"
            return
        if entry.body is None:
            yield "has no body"
            return
        content_type = entry.headers.get("Content-Type", "").partition(";")[0]
        if content_type != "application/json":
            yield f"content type is {content_type!r}"
        yield from self._errors({"$ref": f"{where}/requestBody/content/application~1json/schema"}, entry.body)

    def _answer(self, entry: Entry, operation: Mapping[str, Any], where: str) -> Iterator[str]:
        if entry.status is None:
            return
        responses = operation["responses"]
        name = str(entry.status) if str(entry.status) in responses else "default"
        response, place = responses[name], f"{where}/responses/{name}"
        if "$ref" in response:
            place = f"{BASE}{response['$ref']}"
        contents = self._resolved(response).get("content", {})
        if not contents:
            if entry.answer_type:
                yield f"{entry.status} has a body"
        elif entry.answer_type not in contents:
            yield f"{entry.status} has the content type {entry.answer_type!r}"
        elif "json" in entry.answer_type:
            schema = {"$ref": f"{place}/content/{_escaped(entry.answer_type)}/schema"}
            yield from self._errors(schema, entry.answer)

    def _errors(self, schema: Any, value: Any) -> Iterator[str]:
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = self._validator(schema, registry=self._registry, format_checker=self._formats)
        for error in self._validators[key].iter_errors(value):
            yield f"{error.json_path}: {error.message[:300]}"

    def _resolved(self, part: Any) -> Any:
        while isinstance(part, dict) and "$ref" in part:
            target: Any = self._document
            for name in part["$ref"].removeprefix("#/").split("/"):
                target = target[name.replace("~1", "/").replace("~0", "~")]
            part = target
        return part


def _escaped(name: str) -> str:
    """A key as a JSON pointer within a URI fragment."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~")


def _absolute(schema: Any) -> Any:
    """With references that hold outside the document too."""
    if isinstance(schema, list):
        return [_absolute(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: f"{BASE}{each}" if name == "$ref" and isinstance(each, str) else _absolute(each)
        for name, each in schema.items()
    }


def _is_time(value: object) -> bool:
    if isinstance(value, str):
        if "T" not in value:
            raise ValueError(value)
        parse_time(value)
    return True
