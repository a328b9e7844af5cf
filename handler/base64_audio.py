"""Base64 as people send it -> bytes in a file.

Taken: both alphabets, white space anywhere, padding or none; the header of a data: URI is off already
(`handler.audio_fields`). All else is refused whole: half a recording is no recording. Knows no job. Invariants:
messages show nothing of the value, which is somebody's speech; the size is known before anything is decoded.
"""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

from engine.errors import BadInputError

__all__ = ["Writable", "write_base64"]

_SLICE_CHARS = 1 << 20
"""Decoded at once."""
_LEGAL = "base64 (standard or URL-safe, with or without padding, or a data: URI with ;base64)"
_HIDDEN = "(hidden)"
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
    n_chars = len(value) - sum(value.count(space) for space in _SPACE)
    n_padding = value.count("=")
    n_bytes = (n_chars - n_padding) * 3 // 4
    if n_bytes > max_bytes:
        raise BadInputError(field_name, _HIDDEN, f"at most {max_bytes} bytes of audio; these are {n_bytes}")
    if n_bytes == 0 or n_padding > 2 or (n_chars - n_padding) % 4 == 1 or (n_padding and n_chars % 4):
        raise BadInputError(field_name, _HIDDEN, _LEGAL)
    end = len(value.rstrip(_SPACE))
    at, rest = 0, ""
    while at < end:
        rest += value[at : min(at + _SLICE_CHARS, end)].translate(_TO_STANDARD)
        at += _SLICE_CHARS
        is_last = at >= end
        whole = len(rest) if is_last else len(rest) // 4 * 4
        file.write(_decoded(rest[:whole], field_name, is_last=is_last))
        rest = rest[whole:]
    return n_bytes


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
