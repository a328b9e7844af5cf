"""A multipart/form-data body: short fields, and one file that goes to disk while it arrives.

Knows no field by name but `file`. Invariants: everything is bounded (bytes of the file, bytes beside it,
fields, time); the file has no name in any folder, so that it is gone with its descriptor, whatever happens to
this process; its bytes are never all in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive, Scope

from engine.clock import Clock
from engine.errors import AtCapacityError, BadInputError, SttError, TooBigError
from realtime.audio_errors import BadFormError, SlowUploadError

__all__ = [
    "MAX_FIELDS",
    "MAX_FIELD_BYTES",
    "MAX_OVERHEAD_BYTES",
    "Form",
    "FormLimits",
    "PeerGoneError",
    "check_head",
    "received_form",
]

FILE_FIELD = "file"
MAX_FIELDS = 128
"""OpenAI's form has 14 fields; lists of key words or languages take one each."""
MAX_FIELD_BYTES = 65_536
"""Prompts are at most some thousand characters; audio in a field other than `file` is not wanted."""
MAX_OVERHEAD_BYTES = 1_048_576
"""All that is not the file: fields, part headers, boundaries, what stands before the first and behind the last."""
SPOOL_BYTES = 1_048_576
"""Goes to disk in one piece: a thread for every frame of the network would cost more than the writing."""
WATCH_S = 1.0
"""How often the rate is looked at."""
MEDIA_TYPE = b"multipart/form-data"


@dataclass(frozen=True)
class FormLimits:
    """Bounds of one body.

    Whatever came before, at least min_bytes_per_s * grace_s bytes must have come in the last `grace_s`: a slow
    line may pause, and a dripping one does not keep its place. 4 KiB/s is half of what the slowest telephone
    line needs for live speech. No upload takes longer than `max_upload_s`, in which a line of 1.2 Mbit/s sends
    512 MiB.
    """

    max_file_bytes: int
    grace_s: float = 30.0
    min_bytes_per_s: int = 4_096
    max_upload_s: float = 3_600.0


@dataclass(frozen=True)
class Form:
    """Fields in the order in which they came, without the file; `path` can be read while the form is open."""

    fields: tuple[tuple[str, str], ...]
    path: Path


class PeerGoneError(Exception):
    """The peer has closed the connection: there is nobody to answer."""


def check_head(scope: Scope, limits: FormLimits) -> bytes:
    """Look at a request before its body is read; returns the form's boundary.

    Raises BadFormError, or TooBigError if the declared length is too much in any case.
    """
    headers = dict(scope["headers"])
    kind, options = parse_options_header(headers.get(b"content-type"))
    if kind != MEDIA_TYPE or not options.get(b"boundary"):
        raise BadFormError("the body must be multipart/form-data with a boundary, the audio in the field `file`")
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > limits.max_file_bytes + MAX_OVERHEAD_BYTES:
        raise _too_big(limits)
    return options[b"boundary"]


@contextlib.asynccontextmanager
async def received_form(boundary: bytes, receive: Receive, limits: FormLimits, clock: Clock) -> AsyncIterator[Form]:
    """Read the body; the file is deleted at the end of the `async with`.

    Raises BadFormError, BadInputError, TooBigError (as soon as the limit is passed), SlowUploadError,
    AtCapacityError if the disk is full, PeerGoneError.
    """
    try:
        file = tempfile.TemporaryFile(prefix="upload-")  # noqa: SIM115 - closed below, whatever happens
    except OSError as error:
        raise _no_room(error) from None
    try:
        upload = _Upload(boundary, file, limits)
        await _at_rate(upload, receive, limits, clock)
        yield Form(tuple(upload.fields), Path(f"/dev/fd/{file.fileno()}"))
    finally:
        # In a thread: the file system frees all blocks of the file now, and live streams share this loop.
        await asyncio.shield(asyncio.to_thread(_close, file))


def _close(file: IO[bytes]) -> None:
    # Nobody wants any more what could not be written.
    with contextlib.suppress(OSError):
        file.close()


async def _at_rate(upload: _Upload, receive: Receive, limits: FormLimits, clock: Clock) -> None:
    rate = _Rate(limits, clock.now_s())
    reading = asyncio.ensure_future(upload.read(receive))
    try:
        while not (await asyncio.wait({reading}, timeout=min(WATCH_S, limits.grace_s)))[0]:
            rate.check(clock.now_s(), upload.received_bytes)
        reading.result()
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class _Rate:
    """How much came in the last `grace_s`: one mark per look, and the last one that is older."""

    def __init__(self, limits: FormLimits, began_s: float) -> None:
        self._limits = limits
        self._began_s = began_s
        self._marks = deque([(began_s, 0)])

    def check(self, now_s: float, received_bytes: int) -> None:
        """Raises SlowUploadError if `received_bytes` are too few by now."""
        limits = self._limits
        if now_s - self._began_s > limits.max_upload_s:
            raise SlowUploadError(f"the upload takes longer than {limits.max_upload_s:g} s")
        self._marks.append((now_s, received_bytes))
        since_s = now_s - limits.grace_s
        while self._marks[1][0] <= since_s:
            self._marks.popleft()
        before_s, before_bytes = self._marks[0]
        if before_s <= since_s and received_bytes - before_bytes < limits.min_bytes_per_s * limits.grace_s:
            raise SlowUploadError(
                f"the upload is slower than {limits.min_bytes_per_s} bytes per second, for {limits.grace_s:g} s"
            )


class _Upload:
    """One body while it is read."""

    def __init__(self, boundary: bytes, file: IO[bytes], limits: FormLimits) -> None:
        self.fields: list[tuple[str, str]] = []
        self.file_bytes = 0
        self.received_bytes = 0
        self._file = file
        self._limits = limits
        self._unwritten = bytearray()
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._has_file = False
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_header_name,
                    "on_header_value": self._add_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._begin_data,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
            )
        except FormParserError:
            raise _broken() from None

    async def read(self, receive: Receive) -> None:
        """Read to the end of the body."""
        is_more = True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise PeerGoneError
            self._feed(bytes(message.get("body", b"")))
            is_more = message.get("more_body", False)
            if len(self._unwritten) >= SPOOL_BYTES or not is_more:
                await self._write()
        if not self._is_complete:
            raise BadFormError("the form ends before its last boundary: the upload is not complete")
        if not self._has_file:
            raise BadInputError(FILE_FIELD, None, "an audio or video file")
        if not self.file_bytes:
            raise BadInputError(FILE_FIELD, "", "an audio or video file of at least one byte")

    def _feed(self, data: bytes) -> None:
        self.received_bytes += len(data)
        try:
            self._parser.write(data)
        except FormParserError:
            raise _broken() from None
        if self.file_bytes > self._limits.max_file_bytes:
            raise _too_big(self._limits)
        if self.received_bytes - self.file_bytes > MAX_OVERHEAD_BYTES:
            raise TooBigError(f"the form without its file has more than {MAX_OVERHEAD_BYTES} bytes")

    async def _write(self) -> None:
        data, self._unwritten = self._unwritten, bytearray()
        try:
            await asyncio.to_thread(self._write_now, data)
        except OSError as error:
            raise _no_room(error) from None

    def _write_now(self, data: bytearray) -> None:
        # The file's own lock keeps a `close` waiting that comes while this thread still writes.
        self._file.write(data)
        self._file.flush()

    # What the parser calls

    def _begin_part(self) -> None:
        self._disposition = b""
        self._value = bytearray()

    def _add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _end_header(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _begin_data(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", errors="replace")
        if self._name == FILE_FIELD:
            if self._has_file:
                raise BadFormError("the field `file` is there twice; one request is about one file")
            self._has_file = True
        elif len(self.fields) >= MAX_FIELDS:
            raise BadFormError(f"the form has more than {MAX_FIELDS} fields")

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD:
            self.file_bytes += end - start
            self._unwritten += data[start:end]
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise BadFormError(f"the field {self._name[:80]!r} has more than {MAX_FIELD_BYTES} bytes")

    def _end_part(self) -> None:
        if self._name != FILE_FIELD:
            try:
                self.fields.append((self._name, self._value.decode("utf-8")))
            except UnicodeDecodeError:
                raise BadFormError(f"the field {self._name[:80]!r} is not UTF-8 text") from None

    def _end(self) -> None:
        self._is_complete = True


def _broken() -> BadFormError:
    return BadFormError("the body is no multipart/form-data that can be read")


def _too_big(limits: FormLimits) -> SttError:
    return TooBigError(f"file: larger than {limits.max_file_bytes} bytes (MAX_UPLOAD_BYTES) is not allowed")


def _no_room(error: OSError) -> SttError:
    return AtCapacityError(f"no room for the upload: {error.strerror}")
