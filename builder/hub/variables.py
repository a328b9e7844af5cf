"""The checks of a listing's variables: `env` with its form fields, and `presets`. Pure.

Source: RunPod Hub publishing guide, sections "Environment variables" and "Presets".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from builder.hub.findings import Document, at, is_number, shown

__all__ = ["Fields", "check_env", "check_known", "check_presets", "is_name"]

Fields = Mapping[str, Mapping[str, Any]]
"""Variables with their `input`; an empty one for a variable with a fixed value."""
TYPES = ("string", "number", "boolean", "huggingface")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_INPUT_KEYS = (
    *("name", "type", "description", "default", "required", "advanced", "options", "min", "max"),
    *("trueValue", "falseValue"),
)
_LIBRARIES = ("CUDA_", "HF_", "NVIDIA_", "OMP_", "RUNPOD_")
"""Variables that begin so are read by what the worker stands on."""


def is_name(value: Any) -> bool:
    """True for the name of a variable."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def check_known(document: Document, name: str, path: str, known: Collection[str] | None) -> None:
    """An error if no code reads the variable `name`; `known` None: nobody knows."""
    if known is not None and name not in known and not name.startswith(_LIBRARIES):
        document.error(path, f"{shown(name)}: nothing in the worker's code reads this variable")


def check_env(document: Document, config: Mapping[str, Any], path: str, known: Collection[str] | None) -> Fields:
    """Check `env`; returns its variables."""
    fields: dict[str, Mapping[str, Any]] = {}
    for number, entry in enumerate(document.items(config, "env", path)):
        here = at(at(path, "env"), number)
        entry = document.mapping(entry, here, ("key", "value", "input"))
        if entry is None:
            continue
        name: Any = entry.get("key")
        if not is_name(name):
            document.error(f"{here}.key", f"{shown(name)}; legal: a variable's name, of letters, digits and _")
        elif name in fields:
            document.error(f"{here}.key", f"{shown(name)} is there twice")
        else:
            check_known(document, name, f"{here}.key", known)
        if ("value" in entry) == ("input" in entry):
            document.error(here, "legal: either a fixed value or an input that asks for one")
        field: Mapping[str, Any] = {}
        if "input" in entry:
            field = document.mapping(entry["input"], f"{here}.input", _INPUT_KEYS) or {}
            if field:
                _check_input(document, field, f"{here}.input")
        elif not _is_scalar(entry.get("value", "")):
            document.error(f"{here}.value", f"{shown(entry['value'])}; legal: a text, a number, true or false")
        if is_name(name):
            fields.setdefault(name, field)
    return fields


def check_presets(document: Document, config: Mapping[str, Any], path: str, fields: Fields) -> None:
    """Check `presets`: they set variables of `fields` to values that the form would take."""
    names: set[str] = set()
    for number, entry in enumerate(document.items(config, "presets", path)):
        here = at(at(path, "presets"), number)
        entry = document.mapping(entry, here, ("name", "defaults"))
        if entry is None:
            continue
        name = document.text(entry, "name", here)
        if name in names:
            document.error(f"{here}.name", f"{shown(name)} is there twice")
        names |= {name} if name else set()
        defaults = entry.get("defaults")
        if not isinstance(defaults, dict) or not defaults:
            document.error(f"{here}.defaults", f"{shown(defaults)}; legal: an object with a value for each variable")
            continue
        for key, value in defaults.items():
            spot = at(f"{here}.defaults", key)
            if key not in fields:
                document.error(spot, "no variable of env has this name")
            elif fields[key]:
                _check_value(document, fields[key], value, spot)
            elif not _is_scalar(value):
                document.error(spot, f"{shown(value)}; legal: a text, a number, true or false")


def _check_input(document: Document, field: Mapping[str, Any], path: str) -> None:
    document.text(field, "name", path)
    kind = document.choice(field, "type", path, TYPES)
    document.text(field, "description", path, needed=False)
    for key in ("required", "advanced"):
        if not isinstance(field.get(key, False), bool):
            document.error(f"{path}.{key}", f"{shown(field[key])}; legal: true, false")
    for key, only in (("min", "number"), ("max", "number"), ("trueValue", "boolean"), ("falseValue", "boolean")):
        if key in field and kind not in (only, None):
            document.warning(f"{path}.{key}", f"no effect on type {kind}; legal: on {only}")
    _check_bounds(document, field, path)
    for key in ("trueValue", "falseValue"):
        if not isinstance(field.get(key, ""), str):
            document.error(f"{path}.{key}", f"{shown(field[key])}; legal: a text")
    if "options" in field:
        _check_options(document, field, kind, path)
    if "default" in field:
        _check_value(document, field, field["default"], f"{path}.default")
    elif kind == "boolean":
        document.warning(f"{path}.default", "missing; legal: true, false")


def _check_bounds(document: Document, field: Mapping[str, Any], path: str) -> None:
    for key in ("min", "max"):
        if key in field and not is_number(field[key]):
            document.error(f"{path}.{key}", f"{shown(field[key])}; legal: a number")
    low: Any = field.get("min")
    high: Any = field.get("max")
    if is_number(low) and is_number(high) and low > high:
        document.error(f"{path}.min", f"{low} is more than max, {high}")


def _check_options(document: Document, field: Mapping[str, Any], kind: str | None, path: str) -> None:
    options = document.items(field, "options", path)
    here = f"{path}.options"
    if not options:
        document.error(here, "legal: one or more objects with label and value")
    if kind in ("boolean", "huggingface"):
        document.warning(here, f"no effect on type {kind}; legal: on string, number")
    values: list[Any] = []
    for number, entry in enumerate(options):
        spot = at(here, number)
        option = document.mapping(entry, spot, ("label", "value"))
        if option is None:
            continue
        document.text(option, "label", spot)
        value = option.get("value")
        if kind is not None and not _fits(kind, value):
            document.error(f"{spot}.value", f"{shown(value)}; legal: {_LEGAL[kind]}")
        if value in values:
            document.error(f"{spot}.value", f"{shown(value)} is there twice")
        values.append(value)


def _check_value(document: Document, field: Mapping[str, Any], value: Any, path: str) -> None:
    """An error unless the form field would take `value`."""
    kind = field.get("type")
    if kind not in TYPES:
        return
    if not _fits(kind, value):
        document.error(path, f"{shown(value)} does not fit type {kind}; legal: {_LEGAL[kind]}")
        return
    options = field.get("options")
    if isinstance(options, list) and options and kind in ("string", "number"):
        legal = [option.get("value") for option in options if isinstance(option, dict)]
        if value not in legal:
            document.error(path, f"{shown(value)}; legal: {', '.join(map(shown, legal))}")
    low, high = field.get("min"), field.get("max")
    if kind == "number" and ((is_number(low) and value < low) or (is_number(high) and value > high)):
        document.error(path, f"{value}; legal: {_bounds(low, high)}")


def _bounds(low: Any, high: Any) -> str:
    if is_number(low) and is_number(high):
        return f"{low} to {high}"
    return f"{low} or more" if is_number(low) else f"{high} or less"


_LEGAL = {
    "string": "a text",
    "huggingface": "a text",
    "number": "a number",
    "boolean": "true, false",
}


def _fits(kind: str, value: Any) -> bool:
    if kind == "number":
        return is_number(value)
    return isinstance(value, bool if kind == "boolean" else str)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, bool)) or is_number(value)
