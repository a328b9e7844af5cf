"""The WhisperLive wire protocol as seen by a client: text frames to typed values, options to a handshake.

Pure: knows no socket and no clock. Invariant: whatever a server sends, parsing gives a value or
None and never raises; nothing here ever contains the token.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from engine.types import Word

__all__ = [
    "END_OF_AUDIO",
    "ClientOptions",
    "Closed",
    "Disconnect",
    "ErrorReply",
    "Event",
    "Language",
    "Listing",
    "Ready",
    "Segment",
    "ServerWarning",
    "Update",
    "Wait",
    "handshake",
    "parse_message",
]

END_OF_AUDIO = b"END_OF_AUDIO"
"""The binary frame that ends the audio (WhisperLive's server.py compares exactly these bytes)."""

SEND_LAST_SEGMENTS = 10
"""Completed segments repeated in each message: WhisperLive's own default, which every server knows."""


@dataclass(frozen=True)
class ClientOptions:
    """What a stream asks for; None leaves it to the server.

    `token` goes into the Authorization header and nowhere else.
    """

    language: str | None = None
    task: str = "transcribe"
    model: str | None = None
    use_vad: bool = True
    prompt: str | None = None
    hotwords: str | None = None
    word_timestamps: bool = False
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Segment:
    """Text between two times, in seconds from the start of the stream; `text` keeps its leading blank."""

    start_s: float
    end_s: float
    text: str
    completed: bool
    words: tuple[Word, ...] = ()

    @property
    def key(self) -> tuple[float, float, str]:
        """What must never change once the segment is completed."""
        return self.start_s, self.end_s, self.text


@dataclass(frozen=True)
class Ready:
    """SERVER_READY: the server takes audio now."""

    backend: str


@dataclass(frozen=True)
class Language:
    """The language the server has found."""

    code: str
    probability: float


@dataclass(frozen=True)
class Listing:
    """A segments message as it stood on the wire: the last completed segments, then the provisional one."""

    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Update:
    """News of the text: segments completed by this message, each given exactly once, and the present guess.

    `at_s` is the client's monotonic clock when the message arrived.
    """

    completed: tuple[Segment, ...]
    provisional: Segment | None
    at_s: float


@dataclass(frozen=True)
class ServerWarning:
    """The server says something is amiss, and goes on."""

    message: str


@dataclass(frozen=True)
class Wait:
    """The server is full; it expects a free place in `minutes`, and closes."""

    minutes: float


@dataclass(frozen=True)
class ErrorReply:
    """The server refuses or gives up; it closes next. `code` is empty on servers that send none."""

    message: str
    code: str = ""


@dataclass(frozen=True)
class Disconnect:
    """The server ends the stream by its own rule (longest connection time), after its last text."""


@dataclass(frozen=True)
class Closed:
    """The connection is over; 1006 stands for "no close frame" (RFC 6455 section 7.4.1)."""

    code: int
    reason: str


Event: TypeAlias = Ready | Language | Update | ServerWarning | Wait | ErrorReply | Disconnect | Closed
"""What iterating over a client gives."""

Parsed: TypeAlias = Ready | Language | Listing | ServerWarning | Wait | ErrorReply | Disconnect


def handshake(options: ClientOptions, uid: str) -> str:
    """The first message of a stream, with the key names of WhisperLive's Python client."""
    return json.dumps(
        {
            "uid": uid,
            "language": options.language,
            "task": options.task,
            "model": options.model,
            "use_vad": options.use_vad,
            "send_last_n_segments": SEND_LAST_SEGMENTS,
            "initial_prompt": options.prompt,
            "hotwords": options.hotwords,
            "word_timestamps": options.word_timestamps,
        }
    )


def parse_message(frame: str | bytes) -> Parsed | None:
    """One frame of the server; None for what this client has no use for.

    The order of the checks is that of WhisperLive's Python client: `status` first, then segments,
    then `message`, then `language`.
    """
    try:
        document = json.loads(frame)
    except (ValueError, RecursionError):
        return ServerWarning("the server sent a message that is not JSON")
    if not isinstance(document, dict):
        return None
    if "status" in document:
        return _status(document)
    if "segments" in document:
        return _listing(document["segments"])
    message = document.get("message")
    if message == "SERVER_READY":
        return Ready(str(document.get("backend", "")))
    if message == "DISCONNECT":
        return Disconnect()
    if isinstance(document.get("language"), str):
        return Language(document["language"], _number(document.get("language_prob"), 0.0))
    return None


def _status(document: Mapping[str, Any]) -> Parsed | None:
    status, message = document["status"], document.get("message")
    if status == "WAIT":
        return Wait(max(0.0, _number(message, 0.0)))
    if status == "ERROR":
        code = document.get("code")
        return ErrorReply(str(message), code if isinstance(code, str) else "")
    if status == "WARNING":
        return ServerWarning(str(message))
    return None


def _listing(items: object) -> Listing | None:
    if not isinstance(items, list):
        return None
    segments = [_segment(item) for item in items]
    known = tuple(segment for segment in segments if segment is not None)
    return Listing(known) if known else None


def _segment(item: object) -> Segment | None:
    if not isinstance(item, dict) or not isinstance(item.get("text"), str):
        return None
    start_s, end_s = _number(item.get("start"), math.nan), _number(item.get("end"), math.nan)
    if not (start_s >= 0 and end_s >= 0):
        return None
    words = item.get("words")
    return Segment(
        start_s,
        end_s,
        item["text"],
        item.get("completed") is True,
        _words(words) if isinstance(words, list) else (),
    )


def _words(items: Sequence[object]) -> tuple[Word, ...]:
    words = []
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("word"), str):
            start_s, end_s = _number(item.get("start"), 0.0), _number(item.get("end"), 0.0)
            words.append(Word(item["word"], start_s, end_s, _number(item.get("probability"), 0.0)))
    return tuple(words)


def _number(value: object, otherwise: float) -> float:
    """A finite number, given as such or as a string (WhisperLive sends times as strings)."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return otherwise
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return otherwise
    return number if math.isfinite(number) else otherwise
