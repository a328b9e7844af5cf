"""A media file, wherever it is, as one open descriptor that can be handed to a decoder child.

Knows the size cap, nothing of what is in the file. Invariant: a descriptor that is returned can be
read, has a position, and is the caller's to close.
"""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TypeAlias

from engine.decode_wire import DecodeLimitError, DecodeLimits
from engine.errors import BadAudioError, EngineFailedError

__all__ = ["MediaSource", "open_source"]

MediaSource: TypeAlias = bytes | bytearray | memoryview | Path
"""A whole media file: in memory, or the path of a regular file."""


def open_source(data: MediaSource, limits: DecodeLimits) -> int:
    """Open a file, or put bytes into an anonymous one; returns the descriptor.

    Raises BadAudioError if a path is no readable regular file, DecodeLimitError if there are more
    than `limits.max_input_bytes`, EngineFailedError if there is no room for a copy of the bytes.
    """
    if isinstance(data, Path):
        return _open_path(data, limits)
    size = memoryview(data).nbytes
    _check_size(size, limits)
    try:
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("media")
        else:
            with tempfile.TemporaryFile() as file:
                fd = os.dup(file.fileno())
    except OSError as error:
        raise EngineFailedError(f"no room for the media file: {error.strerror}") from None
    try:
        with open(fd, "wb", closefd=False) as target:
            target.write(data)
    except OSError as error:
        os.close(fd)
        raise EngineFailedError(f"no room for the media file: {error.strerror}") from None
    return fd


def _open_path(path: Path, limits: DecodeLimits) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe must not block the caller
    except OSError as error:
        raise BadAudioError(f"{path.name}: cannot be read ({error.strerror})") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadAudioError(f"{path.name}: is no regular file")
        _check_size(found.st_size, limits)
    except BadAudioError:
        os.close(fd)
        raise
    return fd


def _check_size(size: int, limits: DecodeLimits) -> None:
    if size > limits.max_input_bytes:
        raise DecodeLimitError(f"the file has {size} bytes; the limit is {limits.max_input_bytes}")
