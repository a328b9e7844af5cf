"""How a row of the settings table is written down, and how it describes itself to people.

Knows no particular setting; `engine.settings` holds the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, get_args

from pydantic import AliasChoices, Field, SecretStr
from pydantic.fields import FieldInfo

__all__ = ["AUTO", "Row", "as_row", "row"]

AUTO = "auto"
"""Text of a number that is found at run time; its value is None."""


def row(
    default: Any,
    env: str | tuple[str, ...],
    flags: tuple[str, ...],
    help_text: str,
    *,
    may_be_auto: bool = False,
    **constraints: Any,
) -> Any:
    """A field of the table: its variables, its options and its bounds (`constraints`, as pydantic's).

    `may_be_auto`: AUTO is a legal text, too; the table's validator turns it into None.
    """
    names = (env,) if isinstance(env, str) else env
    return Field(
        default=default,
        validation_alias=AliasChoices(*names),
        description=help_text,
        json_schema_extra={"flags": list(flags), "may_be_auto": may_be_auto},
        **constraints,
    )


@dataclass(frozen=True)
class Row:
    """One line of the settings table, as documentation and command line need it."""

    name: str
    env: tuple[str, ...]
    flags: tuple[str, ...]
    default: Any
    help: str
    legal: str
    is_switch: bool
    may_be_auto: bool
    is_secret: bool

    @property
    def default_text(self) -> str:
        """The default as one would write it; empty if it is the absence of a value."""
        if self.default is None:
            return AUTO if self.may_be_auto else ""
        if self.is_switch:
            return "1" if self.default else "0"
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)


def as_row(name: str, field: FieldInfo) -> Row:
    """Describe a field made by `row`."""
    alias = field.validation_alias
    assert isinstance(alias, AliasChoices)
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    flags = extra["flags"]
    assert isinstance(flags, list)
    may_be_auto = extra["may_be_auto"] is True
    return Row(
        name=name,
        env=tuple(str(choice) for choice in alias.choices),
        flags=tuple(str(flag) for flag in flags),
        default=field.default,
        help=field.description or "",
        legal=f"{AUTO} or {_legal(field)}" if may_be_auto else _legal(field),
        is_switch=field.annotation is bool,
        may_be_auto=may_be_auto,
        is_secret=SecretStr in get_args(field.annotation),
    )


def _legal(field: FieldInfo) -> str:
    low = high = None
    for rule in field.metadata:
        low = getattr(rule, "ge", low)
        high = getattr(rule, "le", high)
    if low is not None and high is not None:
        return f"{_plain(low)} to {_plain(high)}"
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        return ", ".join(choices)
    if field.annotation is bool:
        return "1 or 0"
    if datetime in get_args(field.annotation):
        return "a time with its zone, as 2026-01-31T12:00:00Z"
    return ""


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
