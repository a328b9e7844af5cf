"""FFmpeg (PyAV) as a source of float32 frames: the only module that imports av.

Runs in the decoder child. FFmpeg may use the listed demuxers and decoders only, reads nothing but
the window of one file descriptor it is given, and has no protocol by which it could open anything
else: playlists, concat scripts and session descriptions are refused before their text is followed.
Knows neither process nor pipe; memory is bounded by the largest frame of a codec.
"""

from __future__ import annotations

import importlib
import itertools
import os
import pkgutil
from collections.abc import Iterator
from typing import Any

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from engine.decode_wire import DecodeLimits, Notes, check_shape
from engine.errors import BadAudioError
from engine.types import SAMPLE_RATE_HZ, FloatArray

__all__ = ["DECODERS", "DEMUXERS", "Window", "ffmpeg_frames", "load_all", "open_container"]

DEMUXERS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,asf,au,avi,caf,eac3,flac,flv,loas,matroska,webm,mov,mp4,m4a,mp3,mpegts,ogg,w64,wav,wv"
)
DECODERS = (
    "aac,aac_latm,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,adpcm_swf,alac,amrnb,amrwb,eac3,flac,g722,g726,gsm,gsm_ms,"
    "libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,mp3,mp3float,nellymoser,"
    "opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,"
    "pcm_s32be,pcm_s32le,pcm_s8,pcm_u8,speex,vorbis,wavpack,wmalossless,wmapro,wmav1,wmav2,wmavoice"
)

_OPTIONS = {
    "format_whitelist": DEMUXERS,
    # Confines what FFmpeg runs while it probes, where it would also try decoders for pictures.
    "codec_whitelist": DECODERS,
    # A protocol that does not exist: with an empty list FFmpeg would fall back to its own default.
    "protocol_whitelist": "none",
}

MAX_DEMUX_ERRORS = 16
"""Demuxer errors in a row, with no packet between them, after which the rest of a file is given up."""

_HONEST_LENGTH = ("mov", "matroska", "flac", "w64", "aiff", "caf", "wv")
"""Demuxers whose declared length was written by the encoder; others extrapolate from bit rates."""


def load_all() -> None:
    """Load the parts of PyAV that it would load when a file needs them; in the sandbox it could not."""
    for module in pkgutil.walk_packages(av.__path__, "av."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


class Window:
    """A read-only view of a part of a file, with a position of its own, as FFmpeg reads it."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd, self._start, self._size = fd, start, stop - start
        self._at = 0

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; empty at the end."""
        data = os.pread(self._fd, max(0, min(size, self._size - self._at)), self._start + self._at)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move and return the position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """Return the position."""
        return self._at


def _refuse_open(url: str, flags: int, options: dict[str, str]) -> Any:
    raise PermissionError("media files may not open other files")


def open_container(window: Window) -> InputContainer:
    """Open a media file. Raises BadAudioError unless it is in one of DEMUXERS."""
    try:
        return av.open(window, "r", options=dict(_OPTIONS), metadata_errors="ignore", io_open=_refuse_open)
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError, ValueError):
        raise BadAudioError(
            "the file is damaged, or in none of the formats that can be read (WAV, FLAC, Ogg, MP3, M4A, MP4, WebM, ...)"
        ) from None


def ffmpeg_frames(window: Window, limits: DecodeLimits, notes: Notes) -> Iterator[tuple[FloatArray, int]]:
    """Yield float32 [frames, channels] and the sample rate of the first audio track.

    Rate and channels may change from one yield to the next. What is damaged is skipped and noted.
    Raises BadAudioError, DecodeLimitError, MemoryError.
    """
    with open_container(window) as container:
        if not container.streams.audio:
            raise BadAudioError("the file has no audio track")
        stream = container.streams.audio[0]
        context = stream.codec_context
        if context is None or context.name not in DECODERS.split(","):
            name = context.name if context is not None else "of an unknown kind"
            raise BadAudioError(f"the file's audio codec ({name}) is not supported")
        context.thread_count = 1  # the child may not start threads
        notes.container, notes.codec = container.format.name.partition(",")[0], context.name
        check_shape(context.layout.nb_channels or 1, context.sample_rate or SAMPLE_RATE_HZ, limits)
        notes.declared_s += _declared_s(container, stream, window)
        for frame in _frames(container, stream, notes):
            check_shape(frame.layout.nb_channels, frame.sample_rate, limits)
            yield _to_float(frame), frame.sample_rate


def _packets(container: InputContainer, stream: AudioStream, notes: Notes) -> Iterator[Packet[AudioStream]]:
    """The packets of a track; goes on behind places that cannot be read."""
    errors_in_row = 0
    packets = container.demux(stream)
    while errors_in_row < MAX_DEMUX_ERRORS:
        try:
            packet = next(packets, None)
        except MemoryError:
            raise
        except IndexError:
            # PyAV, at the very end, when a track appeared midway: asked again, it ends as it should.
            errors_in_row += 1
            packets = container.demux(stream)
        except (av.error.FFmpegError, ValueError):
            errors_in_row += 1
            notes.damaged += 1
            packets = container.demux(stream)
        else:
            if packet is None:
                return
            errors_in_row = 0
            yield packet


def _frames(container: InputContainer, stream: AudioStream, notes: Notes) -> Iterator[AudioFrame]:
    for packet in itertools.chain(_packets(container, stream, notes), (None,)):
        # To a decoder, an empty packet means the end; in the middle of a file it means nothing.
        if packet is not None and not packet.size:
            continue
        try:
            yield from stream.codec_context.decode(packet)
        except MemoryError:
            raise
        except (av.error.FFmpegError, ValueError):
            notes.damaged += 1


def _to_float(frame: AudioFrame) -> FloatArray:
    raw = frame.to_ndarray()
    raw = raw.T if frame.format.is_planar else raw.reshape(-1, frame.layout.nb_channels)
    if raw.dtype.kind == "f":
        with np.errstate(over="ignore"):  # doubles out of range become infinities, which are replaced later
            return raw.astype(np.float32)
    scaled = raw.astype(np.float32)
    if raw.dtype.kind == "u":
        scaled -= 128.0
    scaled /= float(1 << (8 * raw.dtype.itemsize - 1))
    return scaled


def _declared_s(container: InputContainer, stream: AudioStream, window: Window) -> float:
    """Length that the file's maker wrote into it, in seconds; 0 if there is none to be trusted.

    Serves to notice that a file was cut off, and for nothing else.
    """
    name = container.format.name.partition(",")[0]
    if name not in _HONEST_LENGTH and not (name == "mp3" and _has_mp3_length(window)):
        return 0.0
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1_000_000
    return 0.0


def _has_mp3_length(window: Window) -> bool:
    """True if the first MPEG frame, after any ID3v2 tag, counts the frames (Xing, Info, VBRI)."""
    at = window.tell()
    window.seek(0)
    head = window.read(10)
    if head[:3] == b"ID3":
        tag_bytes = 0
        for byte in head[6:10]:  # ID3v2.4 section 6.2: 7 bits in each byte
            tag_bytes = tag_bytes << 7 | byte & 0x7F
        window.seek(10 + tag_bytes)
        head = b""
    head += window.read(256)
    window.seek(at)
    return any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))
