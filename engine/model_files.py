"""Is a directory a whole CTranslate2 Whisper model? Found out without loading it.

A copy that was cut off (full disk, interrupted download) makes the native loader fail with words
that name no file, or read beyond the end; here the file is named. Knows nothing of names and hubs.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

__all__ = ["FileProblem", "find_problem"]

BINARY_VERSION = 6
"""The layout of model.bin that is walked here, which converters have written for years; others are taken on trust."""
MAX_VARIABLES = 100_000
"""The largest Whisper has some 1500; a larger number is no header."""
_JSON_FILES = ("tokenizer.json", "config.json", "preprocessor_config.json")
_VOCABULARIES = ("vocabulary.json", "vocabulary.txt")


@dataclass(frozen=True)
class FileProblem:
    """What is wrong with a model directory; `is_missing` means not there at all, as opposed to damaged."""

    file: str
    text: str
    is_missing: bool

    def __str__(self) -> str:
        return f"{self.file} {self.text}"


def find_problem(path: Path) -> FileProblem | None:
    """Look at the files of a model directory; None if they are all there and whole."""
    for name in ("model.bin", "tokenizer.json"):
        # Without its tokenizer faster-whisper would go and fetch one from a hub.
        if not (path / name).is_file():
            return FileProblem(name, "is missing", is_missing=True)
    if not any((path / name).is_file() for name in _VOCABULARIES):
        return FileProblem(_VOCABULARIES[0], "is missing", is_missing=True)
    try:
        return _weights_problem(path / "model.bin") or _text_problem(path)
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else "model.bin"
        return FileProblem(name, f"cannot be read ({error.strerror})", is_missing=False)


def _text_problem(path: Path) -> FileProblem | None:
    for name in _JSON_FILES:
        if (path / name).is_file():
            try:
                json.loads((path / name).read_bytes())
            except ValueError:
                return FileProblem(name, "is damaged (no JSON)", is_missing=False)
    for name in _VOCABULARIES:
        if (path / name).is_file() and not (path / name).stat().st_size:
            return FileProblem(name, "is empty", is_missing=False)
    return None


def _weights_problem(path: Path) -> FileProblem | None:
    with path.open("rb", buffering=4_096) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            needed = _bytes_declared(file)
        except (struct.error, ValueError):
            return FileProblem(path.name, f"is cut off or no model ({size} bytes)", is_missing=False)
    if needed > size:
        return FileProblem(path.name, f"is cut off: {size} of at least {needed} bytes", is_missing=False)
    return None


def _bytes_declared(file: BinaryIO) -> int:
    """Where a model.bin ends, by its own headers (CTranslate2 `model_spec.py`); may be beyond its end.

    Version, name, revision, number of variables; each variable: name, rank, dimensions, type,
    number of bytes, bytes; number of aliases; each alias: two names. Raises struct.error or
    ValueError if a header is cut or absurd.
    """

    def number(layout: str) -> int:
        value: int = struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
        return value

    def skip(count: int) -> None:
        file.seek(count, os.SEEK_CUR)

    def counter() -> int:
        count = number("<I")
        if count > MAX_VARIABLES:
            raise ValueError
        return count

    size = os.fstat(file.fileno()).st_size
    if number("<I") != BINARY_VERSION:
        return file.tell()
    skip(number("<H"))
    skip(4)
    for _ in range(counter()):
        skip(number("<H"))
        skip(4 * number("<B") + 1)
        skip(number("<I"))
        if file.tell() > size:
            return file.tell()
    for _ in range(2 * counter()):
        skip(number("<H"))
    return file.tell()
