"""Reads what people write where a number, a flag or a list is meant.

Each reader takes one JSON value and returns its type, or raises ValueError (pydantic turns it into a problem of
the field). Bounds are not checked here. Knows no field. Invariants: no reader raises anything else, whatever the
JSON; cost is linear in the size of the value; texts come out as valid UTF-8.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

__all__ = [
    "brief",
    "clean",
    "fold",
    "items",
    "to_flag",
    "to_integer",
    "to_number",
    "to_optional_number",
    "to_text",
]

MAX_NUMBER_CHARS = 32
"""Longest number in quotes; 64-bit floats need 24."""
MAX_BRIEF_CHARS = 60
"""How much of a text an error repeats."""
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_TRUE = ("true", "yes", "on", "1", "y", "t")
_FALSE = ("false", "no", "off", "0", "n", "f")
_OFF = ("off", "none", "null", "disabled")
"""Texts that turn a check off, besides false."""


def clean(text: str) -> str:
    """`text` without halves of surrogate pairs, which no tokenizer and no UTF-8 can take."""
    return text.encode("utf-8", "replace").decode("utf-8")


def fold(text: str) -> str:
    """A name as it is compared: lower case, blanks and hyphens as underscores."""
    return re.sub(r"[\s_-]+", "_", text.strip().lower())


def brief(value: object) -> str:
    """A value as a message may show it: short, escaped, whatever its depth and size."""
    if isinstance(value, str):
        cut = value if len(value) <= MAX_BRIEF_CHARS else value[: MAX_BRIEF_CHARS - 3] + "..."
        return ascii(cut) if not cut.isprintable() else repr(cut)
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a number with more than 20 digits"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return f"an object with {len(value)} keys"
    return f"a list of {len(value)}" if isinstance(value, Sequence) else type(value).__name__


def to_number(value: object) -> float:
    """A number, also in quotes; finite."""
    if isinstance(value, str) and len(value) <= MAX_NUMBER_CHARS and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("no number")
    # Python's integers have no limit, and floats refuse what is over theirs.
    if isinstance(value, int) and abs(value) > 1 << 53:
        raise ValueError("too large")
    if not math.isfinite(value):
        raise ValueError("not finite")
    return float(value)


def to_integer(value: object) -> int:
    """A whole number, also `5.0` and `"5"`."""
    number = to_number(value)
    if number != int(number):
        raise ValueError("not whole")
    return int(number)


def to_optional_number(value: object) -> float | None:
    """A number, or None for what turns a check off: false or a text such as "off"."""
    if value is None or value is False or (isinstance(value, str) and fold(value) in _OFF):
        return None
    return to_number(value)


def to_flag(value: object) -> bool:
    """true or false, also as text or as 1 and 0."""
    if isinstance(value, bool):
        return value
    plain = fold(value) if isinstance(value, str) and len(value) <= MAX_NUMBER_CHARS else value
    if plain == 1 or (isinstance(plain, str) and plain in _TRUE):
        return True
    if plain == 0 or (isinstance(plain, str) and plain in _FALSE):
        return False
    raise ValueError("neither true nor false")


def to_text(value: object) -> str:
    """Text, valid UTF-8, without blanks around it."""
    if not isinstance(value, str):
        raise ValueError("no text")
    return clean(value).strip()


def items(value: object, most: int) -> list[object]:
    """The parts of a list, or of a text with commas; at most `most` are looked at, and more are refused."""
    if isinstance(value, str):
        parts: list[object] = [part.strip() for part in value.split(",", most + 1) if part.strip()]
    elif isinstance(value, (list, tuple)):
        parts = list(value[: most + 1])
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        parts = [value]
    else:
        raise ValueError("no list")
    if len(parts) > most:
        raise ValueError("too many")
    return parts
