"""Makes any result fit for JSON, before an SDK that loses what is not.

RunPod's SDK posts nothing at all for a value that JSON does not know or for half a surrogate pair, and posts NaN as
it is. Knows nothing of results. Invariant: what `to_safe` returns passes `json.dumps(allow_nan=False)` and encodes
as UTF-8, and shares no list or dict with what it was given; or ResultNotJsonError.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from engine.errors import ResultNotJsonError
from handler.tolerance import clean

__all__ = ["MAX_DEPTH", "to_safe"]

MAX_DEPTH = 32
"""Deepest nesting; our results have 5 levels. Python's encoder recurses once per level."""
MAX_SHOWN_CHARS = 80
"""How much of a place in the document an error names."""
MAX_SAFE_INTEGER = (1 << 63) - 1
"""Largest whole number that common readers of JSON take."""


def to_safe(value: Any) -> Any:
    """A copy of `value` of nothing but dict, list, str, int, float, bool and None.

    NaN and infinities become None; halves of surrogate pairs `?`; tuples, numpy arrays and numpy numbers lists and
    numbers; dataclasses dicts; whole numbers as keys text. Raises ResultNotJsonError, with the place in the
    document, for all else (bytes, dates, decimals, paths, sets, generators), for nesting beyond MAX_DEPTH and for
    whole numbers beyond 64 bits: what they would have to look like is the caller's to know.
    """
    try:
        return _safe(value, MAX_DEPTH)
    except _Unsafe as error:
        place = clean("$" + "".join(reversed(error.steps)))
        shown = place if len(place) <= MAX_SHOWN_CHARS else place[: MAX_SHOWN_CHARS - 3] + "..."
        raise ResultNotJsonError(f"the result at {shown} is {error.reason}") from None


class _Unsafe(Exception):
    """A value that cannot be kept; `steps` lead to it, the last one first."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []


def _safe(value: Any, depth_left: int) -> Any:
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, (np.generic, np.ndarray)):
        return _safe_numpy(value, depth_left)
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            raise _Unsafe("a whole number beyond 64 bits")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth_left == 0:
        raise _Unsafe(f"nested deeper than {MAX_DEPTH} levels")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): _child(each, f".{key}", depth_left) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_child(each, number, depth_left) for number, each in enumerate(value)]
    raise _Unsafe(f"a {type(value).__name__}, which JSON cannot carry")


def _child(value: Any, step: str | int, depth_left: int) -> Any:
    try:
        return _safe(value, depth_left - 1)
    except _Unsafe as error:
        error.steps.append(step if isinstance(step, str) else f"[{step}]")
        raise


def _safe_numpy(value: Any, depth_left: int) -> Any:
    # Kinds b, i, u and f are booleans and numbers; others (dates, bytes, objects) have no one form in JSON.
    # Floats of more than 64 bits have none in Python.
    if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
        raise _Unsafe(f"numpy data of type {value.dtype}")
    return _safe(value.tolist(), depth_left)


def _key(key: object) -> str:
    if isinstance(key, str):
        return clean(key)
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise _Unsafe(f"an object with a key of type {type(key).__name__}")
