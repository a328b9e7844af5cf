"""Checks of JSON values in the API's own words, put together to shapes of bodies."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.runpod.pod import PodRefusedError

__all__ = [
    "Check",
    "additional",
    "choice",
    "closed",
    "env",
    "flag",
    "kind_of",
    "list_of",
    "number",
    "refuse",
    "text",
    "text_or_null",
    "whole",
]

Check = Callable[[Any, str], list[str]]


def text(at_least: int = 0, pattern: str | None = None) -> Check:
    """A string, of at least so many characters, all of it after a pattern."""

    def check(value: Any, path: str) -> list[str]:
        if not isinstance(value, str):
            return [f"{path}: got {kind_of(value)}, want string"]
        if len(value) < at_least:
            return [f"{path}: minLength: got {len(value)}, want {at_least}"]
        if pattern is not None and not re.fullmatch(pattern, value):
            return [f"{path}: {value!r} does not match pattern '^{pattern}$'"]
        return []

    return check


def whole(at_least: int | None = None, at_most: int | None = None) -> Check:
    """An integer within limits."""

    def check(value: Any, path: str) -> list[str]:
        if isinstance(value, bool) or not isinstance(value, int):
            return [f"{path}: got {kind_of(value)}, want integer"]
        if at_least is not None and value < at_least:
            return [f"{path}: minimum: got {value}, want {at_least}"]
        return [f"{path}: maximum: got {value}, want {at_most}"] if at_most is not None and value > at_most else []

    return check


def number(at_least: float) -> Check:
    """A number of at least this."""

    def check(value: Any, path: str) -> list[str]:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return [f"{path}: got {kind_of(value)}, want number"]
        return [f"{path}: minimum: got {value}, want {at_least:g}"] if value < at_least else []

    return check


def flag(value: Any, path: str) -> list[str]:
    """True or false."""
    return [] if isinstance(value, bool) else [f"{path}: got {kind_of(value)}, want boolean"]


def text_or_null(value: Any, path: str) -> list[str]:
    """A string or null."""
    return [] if value is None or isinstance(value, str) else [f"{path}: got {kind_of(value)}, want null or string"]


def choice(*values: str) -> Check:
    """One of these."""

    def check(value: Any, path: str) -> list[str]:
        shown = ", ".join(f"'{each}'" for each in values)
        return [] if value in values else [f"{path}: value must be one of {shown}"]

    return check


def list_of(item: Check, at_most: int | None = None, *, at_least: int = 0, is_unique: bool = False) -> Check:
    """An array."""

    def check(value: Any, path: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{path}: got {kind_of(value)}, want array"]
        if len(value) < at_least:
            return [f"{path}: minItems: got {len(value)}, want {at_least}"]
        if at_most is not None and len(value) > at_most:
            return [f"{path}: maxItems: got {len(value)}, want {at_most}"]
        if is_unique and any(each in value[:place] for place, each in enumerate(value)):
            return [f"{path}: items are not unique"]
        return [error for place, each in enumerate(value) for error in item(each, f"{path}[{place}]")]

    return check


def env(value: Any, path: str) -> list[str]:
    """Strings by name."""
    if not isinstance(value, dict):
        return [f"{path}: got {kind_of(value)}, want object"]
    return [error for name, each in value.items() for error in text()(each, f"{path}.{name}")]


def closed(fields: Mapping[str, Check], required: tuple[str, ...] = ()) -> Check:
    """An object with no other fields than these."""

    def check(value: Any, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path}: got {kind_of(value)}, want object"]
        errors = [f"{path}: missing property '{name}'" for name in required if name not in value]
        unknown = [name for name in value if name not in fields]
        if unknown:
            errors.append(additional(path, unknown))
        return errors + [
            error for name, rule in fields.items() if name in value for error in rule(value[name], f"{path}.{name}")
        ]

    return check


def additional(path: str, names: list[str]) -> str:
    """How fields are refused that nobody knows."""
    shown = ", ".join(f"'{name}'" for name in names)
    return f"{path}: additional properties {shown} not allowed"


def kind_of(value: Any) -> str:
    """The JSON type."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def refuse(errors: list[str]) -> None:
    """Raises PodRefusedError 422 if there are any."""
    if errors:
        raise PodRefusedError(422, "request body does not match the contract", tuple(errors))
