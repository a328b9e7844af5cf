"""Media file -> mono 16 kHz float32 blocks: the only module that imports soundfile.

Runs in the decoder child. Chooses who decodes: WAV and FLAC go to libsndfile first, everything
else to FFmpeg. Where libsndfile stops early (a streamed WAV that declares length 0, a damaged
FLAC), FFmpeg goes on at that very frame, which is exact because both are lossless. libsndfile is
not used for Ogg and MP3: it ends silently at the first joint of joined files.

Invariant: memory stays bounded at any length. Knows the caps, but neither process nor pipe.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import TypeAlias

import numpy as np
import soundfile
import soxr

from engine.decode_ffmpeg import Window, ffmpeg_frames
from engine.decode_wire import BLOCK_SAMPLES, DecodeLimitError, DecodeLimits, Notes, check_shape
from engine.errors import BadAudioError
from engine.types import SAMPLE_RATE_HZ, FloatArray

__all__ = ["MAX_OGG_LINKS", "decode_media", "ogg_links"]

SOURCE_FRAMES = 32_768
"""Source frames gathered before resampling: decoders' own frames (20 ms) are too small to be quick."""
MAX_OGG_LINKS = 1_000
"""Joined Ogg files looked for in one file: one a minute over 16 h; the last takes all the rest."""
_MAX_SOURCE_FRAMES = 1 << 40
"""Frame counts beyond it (2 months at 192 kHz) are placeholders of encoders that wrote to a pipe."""
_RIFF_PLACEHOLDER_BYTES = 0x7FFFFF00
"""RIFF sizes from here on are placeholders too."""
_SLACK_S = 0.2
"""Declared and decoded lengths differ by codec delay; a larger gap (plus 1 %) is a cut file."""

_Source: TypeAlias = Iterator[tuple[FloatArray, int]]
"""Pieces of a recording: float32 [frames, channels] and their sample rate in Hz."""


def decode_media(fd: int, limits: DecodeLimits, notes: Notes) -> Iterator[FloatArray]:
    """Decode the file behind `fd` into blocks of at most BLOCK_SAMPLES mono 16 kHz samples.

    Channels are averaged, samples limited to [-1, 1], NaN and infinities replaced by silence.
    Raises BadAudioError if nothing can be decoded and DecodeLimitError at a cap.
    """
    mixer = _Mixer(limits, notes)
    for piece, rate_hz in _source(fd, limits, notes):
        yield from mixer.feed(piece, rate_hz)
    yield from mixer.flush()
    if not notes.decoded_s:
        raise BadAudioError("no audio could be decoded from this file")
    if notes.damaged:
        places = "1 place" if notes.damaged == 1 else f"{notes.damaged} places"
        notes.warn(f"damaged in {places}, where something may be missing")
    if notes.decoded_s * 1.01 + _SLACK_S < notes.declared_s:
        notes.warn(f"truncated: {notes.decoded_s:.1f} s decoded of {notes.declared_s:.1f} s declared")


def _source(fd: int, limits: DecodeLimits, notes: Notes) -> _Source:
    size = os.fstat(fd).st_size
    head = os.pread(fd, 12, 0)
    if not head:
        raise BadAudioError("the file is empty")
    if head[:4] == b"fLaC" or (head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE"):
        return _lossless(fd, size, limits, notes)
    if head[:4] == b"OggS":
        return _ogg(fd, size, limits, notes)
    return ffmpeg_frames(Window(fd, 0, size), limits, notes)


def _lossless(fd: int, size: int, limits: DecodeLimits, notes: Notes) -> _Source:
    head = os.pread(fd, 8, 0)
    riff_bytes = int.from_bytes(head[4:], "little") + 8
    if head[:4] == b"RIFF" and size < riff_bytes < _RIFF_PLACEHOLDER_BYTES:
        notes.warn(f"truncated: {size} bytes of {riff_bytes} declared")
    given, is_complete = yield from _sndfile(fd, limits, notes)
    if is_complete:
        return
    skip = given
    try:
        for piece, rate_hz in ffmpeg_frames(Window(fd, 0, size), limits, notes):
            if len(piece) > skip:
                yield piece[skip:], rate_hz
            skip = max(0, skip - len(piece))
    except DecodeLimitError:
        raise
    except BadAudioError:
        if not given:
            raise
        notes.damaged += 1


def _sndfile(fd: int, limits: DecodeLimits, notes: Notes) -> Generator[tuple[FloatArray, int], None, tuple[int, bool]]:
    """Yield what libsndfile decodes; returns the number of frames, and whether they are the whole file."""
    given = 0
    os.lseek(fd, 0, os.SEEK_SET)  # libsndfile starts where the descriptor stands
    try:
        file = soundfile.SoundFile(fd, closefd=False)
    except soundfile.SoundFileError:
        return 0, False  # a WAV with a codec that only FFmpeg knows
    with file:
        if not 0 < file.frames < _MAX_SOURCE_FRAMES:
            return 0, False
        check_shape(file.channels, file.samplerate, limits)
        notes.container, notes.codec = file.format.lower(), file.subtype.lower()
        try:
            while given < file.frames and len(piece := file.read(SOURCE_FRAMES, dtype="float32", always_2d=True)):
                given += len(piece)
                yield piece, file.samplerate
        except soundfile.SoundFileError:
            notes.damaged += 1  # FFmpeg takes over behind the last frame that was yielded
        return given, given >= file.frames


def _ogg(fd: int, size: int, limits: DecodeLimits, notes: Notes) -> _Source:
    """Decode joined Ogg files link by link; FFmpeg alone ends where rate or codec change."""
    starts, end = ogg_links(fd, size)
    if end > size:
        notes.warn("truncated: the file ends inside an Ogg page")
    for start, stop in zip(starts, [*starts[1:], size], strict=True):
        try:
            yield from ffmpeg_frames(Window(fd, start, stop), limits, notes)
        except DecodeLimitError:
            raise
        except BadAudioError:
            if len(starts) == 1:
                raise
            notes.damaged += 1


def ogg_links(fd: int, size: int) -> tuple[list[int], int]:
    """Find the offsets of the joined files, and where the last page ends (RFC 3533 section 6)."""
    starts, at, in_data = [0], 0, False
    while at < size and len(starts) < MAX_OGG_LINKS:
        page = os.pread(fd, 27 + 255, at)
        if len(page) < 27 or page[:4] != b"OggS":
            break
        is_first = bool(page[5] & 2)
        if is_first and in_data:
            starts.append(at)
        in_data = not is_first
        segments = page[26]
        at += 27 + segments + sum(page[27 : 27 + segments])
    return starts, at


class _Mixer:
    """Averages channels, counts against the duration cap, resamples, cuts into blocks."""

    def __init__(self, limits: DecodeLimits, notes: Notes) -> None:
        self._limits = limits
        self._notes = notes
        self._rate_hz = 0
        self._resampler: soxr.ResampleStream | None = None
        self._pending: list[FloatArray] = []
        self._pending_frames = 0
        self._frames = 0
        self._earlier_s = 0.0

    def feed(self, piece: FloatArray, rate_hz: int) -> Iterator[FloatArray]:
        """Take float32 [frames, channels]; yield blocks that became ready."""
        if rate_hz != self._rate_hz:
            yield from self._change_rate(rate_hz)
        self._frames += len(piece)
        total_s = self._earlier_s + self._frames / rate_hz
        if total_s > self._limits.max_duration_s:
            raise DecodeLimitError(f"the audio is longer than the limit of {self._limits.max_duration_s:g} s")
        self._notes.decoded_s = total_s
        self._pending.append(self._mono(piece))
        self._pending_frames += len(piece)
        if self._pending_frames >= SOURCE_FRAMES:
            yield from self._convert(is_last=False)

    def flush(self) -> Iterator[FloatArray]:
        """Yield the rest."""
        if self._rate_hz:
            yield from self._convert(is_last=True)

    def _change_rate(self, rate_hz: int) -> Iterator[FloatArray]:
        if self._rate_hz:
            yield from self._convert(is_last=True)
            self._earlier_s += self._frames / self._rate_hz
            self._frames = 0
            self._notes.warn(f"the sample rate changes to {rate_hz} Hz")
            self._notes.declared_s = 0.0  # it told of the first part only
        self._rate_hz = rate_hz
        self._resampler = None
        if rate_hz != SAMPLE_RATE_HZ:
            self._resampler = soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32")

    def _mono(self, piece: FloatArray) -> FloatArray:
        # One NaN would spread over the resampler's filter, and over a whole window of mel frames.
        is_finite = np.isfinite(piece)
        if not is_finite.all():
            piece = np.where(is_finite, piece, np.float32(0))
            self._notes.warn("samples that are no numbers were replaced by silence")
        piece = np.clip(piece, -1.0, 1.0)
        channels = piece.shape[1]
        if channels == 1:
            return np.ascontiguousarray(piece[:, 0])
        weights = np.full(channels, 1.0 / channels, dtype=np.float32)
        mono: FloatArray = piece @ weights
        return mono

    def _convert(self, *, is_last: bool) -> Iterator[FloatArray]:
        samples = np.concatenate(self._pending) if self._pending else np.zeros(0, dtype=np.float32)
        self._pending, self._pending_frames = [], 0
        if self._resampler is not None:
            samples = np.clip(self._resampler.resample_chunk(samples, last=is_last), -1.0, 1.0)
        for at in range(0, len(samples), BLOCK_SAMPLES):
            yield samples[at : at + BLOCK_SAMPLES]
