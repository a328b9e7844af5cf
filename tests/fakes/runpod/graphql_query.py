"""A small reader of GraphQL: one operation, its variables, and which fields were asked for.

No fragments, directives or aliases: nobody needs them for what the fake answers, and a query that has them is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Field", "Operation", "QueryError", "read_operation", "selected"]

_TOKEN = re.compile(r'\s*(?:#[^\n]*\n\s*|,\s*)*([{}()\[\]:$!=]|[_A-Za-z]\w*|-?\d+(?:\.\d+)?|"(?:[^"\\\n]|\\.)*"|\S|$)')
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "null": None}


class QueryError(Exception):
    """The text is no query that the API would run; answered with HTTP 400."""


@dataclass
class Field:
    """One field asked for; `args` have their variables put in."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    fields: list[Field] = field(default_factory=list)


@dataclass
class Operation:
    """`kind` is query or mutation; `types` are the declared types of the variables, without exclamation marks."""

    kind: str
    types: dict[str, str]
    fields: list[Field]
    uses: dict[tuple[str, str], str]
    """(field, argument) to the variable given there directly."""


def read_operation(text: str, variables: Mapping[str, Any]) -> Operation:
    """Parse `text` and put the variables in. Raises QueryError."""
    return _Reader(text, variables).operation()


def selected(value: Any, fields: list[Field], where: str) -> Any:
    """`value` cut down to what was asked for. Raises QueryError for a field that is not there."""
    if value is None:
        return None
    if isinstance(value, list):
        return [selected(each, fields, where) for each in value]
    if not isinstance(value, dict):
        if fields:
            raise QueryError(f'Field "{where}" must not have a selection since it has no subfields.')
        return value
    if not fields:
        raise QueryError(f'Field "{where}" must have a selection of subfields. Did you mean "{where} {{ ... }}"?')
    for each in fields:
        if each.name not in value:
            raise QueryError(f'Cannot query field "{each.name}" on "{where}".')
    return {each.name: selected(_called(value[each.name], each.args), each.fields, each.name) for each in fields}


def _called(value: Any, args: dict[str, Any]) -> Any:
    """A field with arguments is a function of them."""
    return value(args) if callable(value) else value


class _Reader:
    def __init__(self, text: str, variables: Mapping[str, Any]) -> None:
        self._tokens = [match[1] for match in _TOKEN.finditer(text)]
        self._at = 0
        self._variables = variables
        self._types: dict[str, str] = {}
        self._uses: dict[tuple[str, str], str] = {}

    def operation(self) -> Operation:
        kind = self._next() if self._peek() in ("query", "mutation") else "query"
        if self._peek() not in ("{", "("):
            self._name()
        if self._took("("):
            while not self._took(")"):
                self._declaration()
        fields = self._selection()
        if self._peek() != "":
            raise self._unexpected()
        return Operation(kind, self._types, fields, self._uses)

    def _declaration(self) -> None:
        self._expect("$")
        name = self._name()
        self._expect(":")
        is_list = self._took("[")
        kind = self._name()
        is_required = self._took("!")
        if is_list:
            self._expect("]")
            is_required = self._took("!")
        if is_required and self._variables.get(name) is None:
            raise QueryError(f'Variable "${name}" of required type "{kind}!" was not provided.')
        self._types[name] = kind

    def _selection(self) -> list[Field]:
        self._expect("{")
        fields = []
        while not self._took("}"):
            fields.append(self._field())
        if not fields:
            raise QueryError("Syntax Error: Expected Name, found }.")
        return fields

    def _field(self) -> Field:
        each = Field(self._name())
        if self._took("("):
            while not self._took(")"):
                argument = self._name()
                self._expect(":")
                if self._peek() == "$":
                    self._uses[each.name, argument] = self._tokens[self._at + 1]
                each.args[argument] = self._value()
        if self._peek() == "{":
            each.fields = self._selection()
        return each

    def _value(self) -> Any:
        if self._took("$"):
            name = self._name()
            if name not in self._types:
                raise QueryError(f'Variable "${name}" is not defined.')
            return self._variables.get(name)
        if self._took("{"):
            result: dict[str, Any] = {}
            while not self._took("}"):
                key = self._name()
                self._expect(":")
                result[key] = self._value()
            return result
        if self._took("["):
            items = []
            while not self._took("]"):
                items.append(self._value())
            return items
        token = self._next()
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        return token if token[:1].isalpha() else self._literal(token)

    def _literal(self, token: str) -> Any:
        try:
            return json.loads(token)
        except ValueError:
            raise QueryError(f'Syntax Error: Unexpected "{token or "<EOF>"}".') from None

    # Tokens

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _took(self, token: str) -> bool:
        if self._peek() == "" and token != "":
            raise self._unexpected()
        if self._peek() != token:
            return False
        self._at += 1
        return True

    def _expect(self, token: str) -> None:
        if not self._took(token):
            raise self._unexpected()

    def _name(self) -> str:
        if not re.fullmatch(r"[_A-Za-z]\w*", self._peek()):
            raise self._unexpected()
        return self._next()

    def _unexpected(self) -> QueryError:
        return QueryError(f'Syntax Error: Unexpected "{self._peek() or "<EOF>"}".')
