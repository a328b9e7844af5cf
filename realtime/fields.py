"""Reads typed, bounded fields from a JSON object: null and absence mean the default.

Knows nothing of any particular message. Invariant: each reader returns a value of its type within
its bounds, or raises BadInputError that names field, value and legal range. Booleans are no
numbers here, and numbers in quotes are text, although Python and JavaScript would let them pass.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from engine.errors import BadInputError

__all__ = ["choice", "flag", "integer", "misspelt", "number", "shown", "text"]

MAX_HINTS = 8
"""Unknown keys that are compared with the known ones: each comparison costs about 0.2 ms."""
MAX_HINT_KEY_CHARS = 64
"""Longer keys are no misspellings of ours, and comparing them is slow."""
SIMILARITY = 0.8
"""difflib ratio from which an unknown key counts as misspelt."""
MAX_SHOWN_CHARS = 80
"""How much of a client's own text a warning repeats."""


def text(raw: Mapping[str, Any], key: str, most: int, least: int = 0) -> str | None:
    """Text of `least` to `most` characters."""
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise BadInputError(key, value, f"text of {least} to {most} characters")
    return value


def flag(raw: Mapping[str, Any], key: str) -> bool:
    """A boolean that is false by default."""
    value = raw.get(key)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadInputError(key, value, "true or false")
    return value


def choice(raw: Mapping[str, Any], key: str, legal: tuple[str, ...]) -> str:
    """One of a few texts, the first of them by default."""
    value = raw.get(key)
    if value is None:
        return legal[0]
    if not isinstance(value, str) or value not in legal:
        raise BadInputError(key, value, " or ".join(legal))
    return value


def number(raw: Mapping[str, Any], key: str, low: float, high: float) -> float | None:
    """A number from `low` to `high`, both included."""
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadInputError(key, value, f"a number from {low:g} to {high:g}")
    return float(value)


def integer(raw: Mapping[str, Any], key: str, low: int, high: int) -> int | None:
    """A whole number from `low` to `high`; `10.0` is one, as JSON does not tell it from `10`."""
    value = raw.get(key)
    if value is None:
        return None
    legal = f"a whole number from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise BadInputError(key, value, legal)
    if value != int(value):
        raise BadInputError(key, value, legal)
    return int(value)


def misspelt(raw: Mapping[str, Any], known: tuple[str, ...], prefix: str = "") -> list[str]:
    """A warning for each unknown key that is nearly a known one (`useVad`, `hot_words`)."""
    plain = {_plain(name): name for name in known}
    unknown = [key for key in raw if key not in known and len(key) <= MAX_HINT_KEY_CHARS]
    hints = []
    for key in unknown[:MAX_HINTS]:
        near = difflib.get_close_matches(_plain(key), plain, n=1, cutoff=SIMILARITY)
        if near:
            hints.append(f"{prefix}{key}: unknown and ignored; did you mean {prefix}{plain[near[0]]}?")
    return hints


def shown(value: str) -> str:
    """A client's text as a warning may repeat it: quoted, escaped, cut."""
    quoted = repr(value)
    return quoted if len(quoted) <= MAX_SHOWN_CHARS else quoted[: MAX_SHOWN_CHARS - 3] + "..."


def _plain(key: str) -> str:
    return key.lower().replace("_", "").replace("-", "")
