"""What both halves of the media decoder share: limits, notes and the framing of their pipe.

Frames are a kind byte, a length and that many bytes: JSON for control, raw float32 for audio.
Nothing is pickled, so bytes from a child that a hostile file has taken over stay plain data.
Knows no codec and no process. Invariant: no frame is longer than MAX_FRAME_BYTES.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

from engine.errors import BadAudioError, BadInputError

__all__ = [
    "BLOCK",
    "BLOCK_SAMPLES",
    "END",
    "FAILED",
    "HEADER",
    "JOB",
    "LONGEST_S",
    "MAX_FRAME_BYTES",
    "MAX_WARNINGS",
    "READY",
    "DecodeLimitError",
    "DecodeLimits",
    "Notes",
    "check_shape",
    "pack_frame",
    "recv_exact",
]

READY, JOB, BLOCK, END, FAILED = b"R", b"J", b"B", b"E", b"X"
"""Kinds of frames: child is up; decode this; samples; summary (JSON); refusal (JSON)."""

HEADER = struct.Struct("!cI")
"""Kind and length of a frame."""

BLOCK_SAMPLES = 65_536
"""Most samples in one block: 4.1 s of audio, 256 KiB; bounds what either side holds."""
MAX_FRAME_BYTES = BLOCK_SAMPLES * 4

MAX_WARNINGS = 10
"""More than a reader reads; a file made of a thousand pieces could give rise to a thousand."""

LONGEST_S = 86_400.0
"""A day: the longest duration that a caller may allow; it is 5.5 GB of samples."""


class DecodeLimitError(BadAudioError):
    """A cap was hit; the message names the cap and the value. The child is replaced afterwards."""


@dataclass(frozen=True)
class DecodeLimits:
    """Caps on one media file; what a file declares about itself is never used to relax one."""

    max_duration_s: float = 4 * 3_600.0
    """Decoded seconds: 1 MiB of silent FLAC can hold a day, so bytes say nothing about length."""
    max_input_bytes: int = 3 << 30
    """4 h of 16-bit stereo at 48 kHz (2.6 GiB) fit; bytes that are given are copied into memory once."""
    max_channels: int = 8
    """7.1 surround is the most that anybody records speech with."""
    min_rate_hz: int = 8_000
    """Telephony; below it a small file of PCM could hold hours."""
    max_rate_hz: int = 192_000
    """The highest rate of common recorders."""
    wall_s: float = 60.0
    """Seconds of waiting for the child that any file may cost."""
    wall_per_audio_s: float = 0.05
    """More such seconds per second of audio delivered: 20 times real time; a slow core does 200."""
    memory_bytes: int = 512 << 20
    """Address space beyond what the loaded libraries take; block-wise decoding needs a tenth."""

    def __post_init__(self) -> None:
        """Raise BadInputError for a duration that cannot be granted."""
        if not 0 < self.max_duration_s <= LONGEST_S:
            raise BadInputError("max_duration_s", self.max_duration_s, f"more than 0, to {LONGEST_S:g}")

    def work_s(self, audio_s: float) -> float:
        """Seconds of work allowed for `audio_s` seconds of decoded audio."""
        return self.wall_s + self.wall_per_audio_s * audio_s


@dataclass
class Notes:
    """What is learnt about a file while it is decoded; valid at the end of its blocks."""

    container: str = ""
    codec: str = ""
    decoded_s: float = 0.0
    declared_s: float = 0.0
    damaged: int = 0
    warnings: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        """Add a warning, once; the first MAX_WARNINGS are kept."""
        if text not in self.warnings and len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)


def check_shape(channels: int, rate_hz: int, limits: DecodeLimits) -> None:
    """Raise DecodeLimitError if channels or sample rate are beyond the limits."""
    if not 1 <= channels <= limits.max_channels:
        raise DecodeLimitError(f"channels: {channels} is not allowed; legal: 1 to {limits.max_channels}")
    if not limits.min_rate_hz <= rate_hz <= limits.max_rate_hz:
        raise DecodeLimitError(
            f"sample rate: {rate_hz} Hz is not allowed; legal: {limits.min_rate_hz} to {limits.max_rate_hz} Hz"
        )


def pack_frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Header and payload."""
    return HEADER.pack(kind, len(payload)) + payload


def recv_exact(sock: socket.socket, size: int) -> bytes:
    """Receive `size` bytes; raises EOFError if the peer is gone before that."""
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
