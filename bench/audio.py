"""The sound of playlists as bytes on the wire, without copies: all clients share one buffer.

Pure. Invariant: for any size of chunk, the chunks of a playlist joined are the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bench.playlist import MAX_PAUSE_S, Playlist
from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.latency import Recording

__all__ = ["BYTES_PER_SAMPLE", "SharedAudio"]

BYTES_PER_SAMPLE = 4
"""float32 little-endian, which every server of the protocol takes by default."""


class SharedAudio:
    """All recordings and the longest pause, encoded once. Recordings are told apart by their stems."""

    def __init__(self, audio: Mapping[Recording, FloatArray]) -> None:
        silence = np.zeros(round(MAX_PAUSE_S * SAMPLE_RATE_HZ), dtype="<f4")
        encoded = [silence.tobytes(), *(samples.astype("<f4", copy=False).tobytes() for samples in audio.values())]
        self._bytes = b"".join(encoded)
        self._begins: dict[str, int] = {}
        at = len(encoded[0])
        for recording, data in zip(audio, encoded[1:], strict=True):
            self._begins[recording.path.stem] = at
            at += len(data)

    def chunks(self, playlist: Playlist, chunk_samples: int) -> Iterator[bytes | memoryview]:
        """The joined sound in chunks of `chunk_samples`; the last may be shorter."""
        size = chunk_samples * BYTES_PER_SAMPLE
        parts: list[memoryview] = []
        missing = size
        for stretch in self._stretches(playlist):
            at = 0
            while at < len(stretch):
                part = stretch[at : at + missing]
                parts.append(part)
                at += len(part)
                missing -= len(part)
                if not missing:
                    yield parts[0] if len(parts) == 1 else b"".join(parts)
                    parts, missing = [], size
        if parts:
            yield b"".join(parts)

    def _stretches(self, playlist: Playlist) -> Iterator[memoryview]:
        view = memoryview(self._bytes)
        for piece in playlist.pieces:
            yield view[: piece.silence_samples * BYTES_PER_SAMPLE]
            begin = self._begins[piece.recording.path.stem]
            yield view[begin + piece.begin_sample * BYTES_PER_SAMPLE : begin + piece.end_sample * BYTES_PER_SAMPLE]
