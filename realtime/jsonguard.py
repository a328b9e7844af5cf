"""Reads a JSON object from a frame of somebody nobody vouches for.

`json.loads` alone is not enough: it takes NaN, Infinity and 1e999, raises RecursionError on deep
nesting and a bare ValueError on thousands of digits, silently drops one of two equal keys, and
returns lone surrogates that fail only when they are echoed. Here size and depth are checked
before parsing, and everything that is refused is refused with one of two errors.

Knows nothing of handshakes, sessions or sockets. Invariants: `load_object` returns a dict whose
numbers are finite and whose strings encode as UTF-8, or raises BadJsonError (close code 1007) or
BadHandshakeError (1003); its cost is linear in the size of the frame.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from engine.errors import BadHandshakeError, BadJsonError

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "MAX_JSON_BYTES", "load_object"]

MAX_JSON_BYTES = 16 * 1024
"""An honest handshake has about 500 bytes; two texts of 1,000 characters, escaped, still fit."""
MAX_DEPTH = 16
"""An honest handshake has depth 2; Python's parser recurses once per level."""
MAX_DIGITS = 20
"""Digits of one integer: what 64 bits can hold. Longer ones cost quadratic time."""

_BOM = "\ufeff"
_BLANKS = " \t\r\n"
_PREFIX_BYTES = 64
"""Where the opening brace of a binary JSON frame must be found; beyond it the frame is audio."""

# The closing quote is optional and an escape may lack its character, so no alternative can fail
# after it has begun: there is nothing to backtrack into, and the scan stays linear.
_TOKENS = re.compile(r'"(?:[^"\\]|\\.?)*"?|[\[{]|[\]}]', re.DOTALL)


def load_object(frame: str | bytes) -> dict[str, Any]:
    """Parse one JSON object (RFC 8259) from a text frame, or from a binary one in UTF-8.

    A leading byte order mark is tolerated, as RFC 8259 section 8.1 allows. Equal keys in one
    object are refused: which of them counts would depend on the reader.

    Raises BadHandshakeError if the frame is JSON but no object, or binary and not JSON at all
    (most likely audio); BadJsonError for everything else that is wrong.
    """
    text = _as_text(frame)
    _check_depth(text)
    value = _parse(text)
    if not isinstance(value, dict):
        raise BadHandshakeError(f"the first frame must be a JSON object; got JSON of type {type(value).__name__}")
    _check_encodable(value)
    return value


def _as_text(frame: str | bytes) -> str:
    if isinstance(frame, str):
        # Encoding multiplies the length by 1 to 4, so most giants are refused without the copy.
        if len(frame) > MAX_JSON_BYTES or len(frame.encode("utf-8", "surrogatepass")) > MAX_JSON_BYTES:
            raise _too_long()
        return frame.removeprefix(_BOM)
    data = bytes(frame)
    prefix = data[:_PREFIX_BYTES].removeprefix(_BOM.encode()).lstrip(_BLANKS.encode())
    if not prefix.startswith(b"{"):
        raise BadHandshakeError(f"the first frame must be a JSON object; got {len(data)} bytes of something else")
    if len(data) > MAX_JSON_BYTES:
        raise _too_long()
    try:
        return data.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise BadJsonError(f"not UTF-8 at byte {error.start}") from None


def _too_long() -> BadJsonError:
    return BadJsonError(f"JSON is longer than {MAX_JSON_BYTES} bytes")


def _check_depth(text: str) -> None:
    depth = 0
    for token in _TOKENS.finditer(text):
        first = token.group()[0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise BadJsonError(f"JSON is nested deeper than {MAX_DEPTH} levels")
        elif first in "]}":
            depth -= 1


def _parse(text: str) -> object:
    try:
        value: object = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_short_integer,
            object_pairs_hook=_unique,
        )
    except json.JSONDecodeError as error:
        raise BadJsonError(f"not JSON: {error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError):
        # Not reachable as far as we know, since the hooks and the depth check come first; the
        # parser has raised both on hostile text before, and neither may end a connection silently.
        raise BadJsonError("not JSON that can be read") from None
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadJsonError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise BadJsonError("a number is too large for 64-bit floating point")
    return value


def _short_integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise BadJsonError(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise BadJsonError("a key appears twice in one object")
    return unique


def _check_encodable(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise BadJsonError("half of a surrogate pair stands alone") from None
