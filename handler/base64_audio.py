"""Base64 as people send it -> bytes in a file.

Taken: both alphabets, white space anywhere, padding or none, a `data:...;base64,` header. All else is refused
whole: half a recording is no recording. Knows no job. Invariants: messages show nothing of the value, which is
somebody's speech; the size is known before anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Protocol

from engine.errors import BadInputError

__all__ = ["Writable", "write_base64"]

MAX_HEADER_CHARS = 200
"""Longest header of a data URI, media type and parameters included."""
_SLICE_CHARS = 1 << 20
"""Decoded at once."""
_LEGAL = "base64 (standard or URL-safe, with or without padding, or a data: URI with ;base64)"
_HIDDEN = "(hidden)"
_HEADER = re.compile(r"data:[^,]*?;base64,", re.IGNORECASE)
_SPACE = " \t\r\n"
_TO_STANDARD = str.maketrans({**dict.fromkeys(_SPACE), "-": "+", "_": "/"})


class Writable(Protocol):
    """A binary file open for writing."""

    def write(self, data: bytes, /) -> int:
        """Write all of `data`."""
        ...


def write_base64(value: str, file: Writable, field_name: str, max_bytes: int) -> int:
    """Decode `value` into `file` and return the number of bytes.

    Raises BadInputError that names `field_name`: not base64, empty, or more than `max_bytes`.
    """
    at = _header_chars(value, field_name)
    n_chars = len(value) - at - sum(value.count(space, at) for space in _SPACE)
    n_padding = value.count("=", at)
    n_bytes = (n_chars - n_padding) * 3 // 4
    if n_bytes > max_bytes:
        raise BadInputError(field_name, _HIDDEN, f"at most {max_bytes} bytes of audio; these are {n_bytes}")
    if n_bytes == 0 or n_padding > 2 or (n_chars - n_padding) % 4 == 1 or (n_padding and n_chars % 4):
        raise BadInputError(field_name, _HIDDEN, _LEGAL)
    end = len(value.rstrip(_SPACE))
    rest = ""
    while at < end:
        rest += value[at : min(at + _SLICE_CHARS, end)].translate(_TO_STANDARD)
        at += _SLICE_CHARS
        is_last = at >= end
        whole = len(rest) if is_last else len(rest) // 4 * 4
        file.write(_decoded(rest[:whole], field_name, is_last=is_last))
        rest = rest[whole:]
    return n_bytes


def _header_chars(value: str, field_name: str) -> int:
    start = len(value) - len(value.lstrip(_SPACE)) if value[:1] in _SPACE else 0
    if value[start : start + 5].lower() != "data:":
        return 0
    header = _HEADER.match(value, start, start + MAX_HEADER_CHARS)
    if header is None:
        raise BadInputError(field_name, _HIDDEN, _LEGAL)
    return header.end()


def _decoded(text: str, field_name: str, *, is_last: bool) -> bytes:
    """Raises BadInputError for characters outside the alphabet, and for padding that is not at the end."""
    if is_last:
        text += "=" * (-len(text) % 4)
    elif "=" in text:
        raise BadInputError(field_name, _HIDDEN, _LEGAL)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadInputError(field_name, _HIDDEN, _LEGAL) from None
