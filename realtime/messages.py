"""What the server says on the wire: message builders, and the close codes as data.

The shapes are those of collabora/WhisperLive, to the byte where its clients care: they drop
messages with another `uid`, take any message with `language` for language detection, stop reading
at `status`, index the last element of `segments` without looking, and read times as strings.

Knows nothing of sessions, engines or sockets. Invariants: a segments message is never empty and
never carries `status`, `message` or (outside the seed protocol) `language`; every time comes from
integer milliseconds, so two equal times are equal strings; `encode` never raises on any text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

__all__ = [
    "BACKEND",
    "CLOSE_CODES",
    "CloseCode",
    "Message",
    "Segment",
    "SegmentWord",
    "disconnect",
    "encode",
    "error",
    "language",
    "segments",
    "server_ready",
    "wait",
    "warning",
]

Message: TypeAlias = dict[str, Any]

BACKEND = "faster_whisper"
"""WhisperLive's Python client records completed segments for this backend name only."""

PROBABILITY_DIGITS = 4


@dataclass(frozen=True)
class CloseCode:
    """Why a WebSocket was closed, and whether the same client may come back."""

    name: str
    meaning: str
    retryable: bool


CLOSE_CODES: Mapping[int, CloseCode] = MappingProxyType(
    {
        1000: CloseCode("done", "everything that was sent has been transcribed and delivered", False),
        1001: CloseCode("draining", "the server is shutting down; reconnect, here later or elsewhere", True),
        1003: CloseCode("bad_handshake", "the first frame is no JSON object", False),
        1007: CloseCode("bad_json", "a frame is not UTF-8, or not JSON that can be read", False),
        1008: CloseCode("policy", "a value out of its legal range, or a message that took too long", False),
        1009: CloseCode("too_big", "one message is larger than its limit", False),
        1011: CloseCode("internal", "the server failed; reconnect", True),
        1013: CloseCode("full", "the server is at capacity; come back after the time in WAIT", True),
        4000: CloseCode("idle", "no bytes arrived for too long", True),
        4002: CloseCode("session_limit", "the longest connection time is over; reconnect", True),
        4003: CloseCode("slow_reader", "the client did not read its messages; reconnect", True),
    }
)
"""WebSocket close codes (RFC 6455 section 7.4.1; 4000 to 4003 are this server's own)."""


@dataclass(frozen=True)
class SegmentWord:
    """One word of a segment; `text` keeps its leading blank, times count from the stream's start."""

    text: str
    start_ms: int
    end_ms: int
    probability: float

    def __post_init__(self) -> None:
        _check_times(self.start_ms, self.end_ms)


@dataclass(frozen=True)
class Segment:
    """A piece of transcript; `text` keeps its leading blank, times count from the stream's start.

    A completed segment never changes again; a provisional one may.
    """

    start_ms: int
    end_ms: int
    text: str
    completed: bool
    words: tuple[SegmentWord, ...] = ()

    def __post_init__(self) -> None:
        _check_times(self.start_ms, self.end_ms)


def _check_times(start_ms: int, end_ms: int) -> None:
    if not 0 <= start_ms <= end_ms:
        raise ValueError(f"start_ms {start_ms}, end_ms {end_ms}: legal: 0 <= start_ms <= end_ms")


def server_ready(uid: str) -> Message:
    """The first message of every stream; clients read it as the permission to send audio."""
    return {"uid": uid, "message": "SERVER_READY", "backend": BACKEND}


def wait(uid: str, minutes: float) -> Message:
    """The server is full for about `minutes`; a close with 1013 follows.

    Raises ValueError unless `minutes` is finite and not negative.
    """
    if not (math.isfinite(minutes) and minutes >= 0):
        raise ValueError(f"minutes {minutes}: legal: finite, 0 or more")
    return {"uid": uid, "status": "WAIT", "message": round(float(minutes), 2)}


def disconnect(uid: str) -> Message:
    """The longest connection time is over; the last segments have been sent, a close follows."""
    return {"uid": uid, "message": "DISCONNECT"}


def error(uid: str, message: str, code: str) -> Message:
    """Something ends this stream; `code` is that of the SttError behind it. A close follows."""
    return {"uid": uid, "status": "ERROR", "message": message, "code": code}


def warning(uid: str, message: str) -> Message:
    """Something the client should know; the stream goes on."""
    return {"uid": uid, "status": "WARNING", "message": message}


def language(uid: str, code: str, probability: float) -> Message:
    """The detected language; due once, before any segments, to clients that have named none."""
    return {"uid": uid, "language": code, "language_prob": _probability(probability)}


def segments(
    uid: str,
    completed: Sequence[Segment],
    provisional: Segment | None = None,
    *,
    result_key: bool = False,
    seed_language: str | None = None,
) -> Message:
    """The last completed segments, oldest first, then at most one provisional.

    `result_key` repeats the list as `result`, with times as numbers. `seed_language` adds
    `language`, for clients that have asked for the seed project's protocol and for no others.

    Raises ValueError for an empty list (clients index its last element) and for a segment in the
    wrong place.
    """
    listed = [*completed, *([] if provisional is None else [provisional])]
    if not listed:
        raise ValueError("a segments message needs at least one segment")
    if not all(segment.completed for segment in completed):
        raise ValueError("a provisional segment stands among the completed ones")
    if provisional is not None and provisional.completed:
        raise ValueError("the provisional segment is completed")
    message: Message = {"uid": uid, "segments": [_segment(segment, as_text=True) for segment in listed]}
    if result_key:
        message["result"] = [_segment(segment, as_text=False) for segment in listed]
    if seed_language is not None:
        message["language"] = seed_language
    return message


def encode(message: Mapping[str, Any]) -> str:
    """Compact JSON that always encodes as UTF-8: a lone surrogate becomes a question mark."""
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace").decode("utf-8")


def _segment(segment: Segment, *, as_text: bool) -> Message:
    shown: Message = {
        "start": _time(segment.start_ms, as_text),
        "end": _time(segment.end_ms, as_text),
        "text": segment.text,
        "completed": segment.completed,
    }
    if segment.words:
        shown["words"] = [
            {
                "word": word.text,
                "start": _time(word.start_ms, as_text),
                "end": _time(word.end_ms, as_text),
                "probability": _probability(word.probability),
            }
            for word in segment.words
        ]
    return shown


def _time(time_ms: int, as_text: bool) -> str | float:
    # By integer division: "%.3f" % (ms / 1000) would be right too, until somebody adds floats first.
    return f"{time_ms // 1000}.{time_ms % 1000:03d}" if as_text else time_ms / 1000


def _probability(value: float) -> float:
    if math.isnan(value):
        return 0.0
    return round(min(1.0, max(0.0, float(value))), PROBABILITY_DIGITS)
