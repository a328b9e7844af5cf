"""The not yet settled audio of one stream, addressed by absolute sample.

Holds log-mel frames, which is all that decoding needs; each frame is computed once. The sample
index is the only clock: seconds exist on output alone. Settled audio is dropped on request, never
by itself. Knows nothing of speech, words or time.
"""

from __future__ import annotations

import numpy as np

from engine.mel import LogMelStream
from engine.types import HOP_SAMPLES, MAX_FRAMES, FloatArray

__all__ = ["AudioBuffer"]


class AudioBuffer:
    """Append at the end, cut windows out, forget the beginning."""

    def __init__(self, n_mels: int) -> None:
        self._mel = LogMelStream(n_mels)
        self._chunks: list[FloatArray] = []
        self._n_mels = n_mels
        self._first_frame = 0
        self._end_samples = 0

    @property
    def end_samples(self) -> int:
        """Samples received so far."""
        return self._end_samples

    @property
    def start_samples(self) -> int:
        """The first sample that can still be decoded."""
        return self._first_frame * HOP_SAMPLES

    @property
    def size_bytes(self) -> int:
        """Memory held by frames."""
        return sum(chunk.nbytes for chunk in self._chunks)

    def append(self, samples: FloatArray) -> None:
        """Add float32 16 kHz samples."""
        frames = self._mel.push(samples)
        self._end_samples += len(samples)
        if frames.shape[1]:
            self._chunks.append(frames)

    def window(self, start_samples: int, end_samples: int) -> FloatArray:
        """Log10-mel of [start, end), float32 [n_mels, 1..MAX_FRAMES].

        The end is rounded up to a whole frame. Where it is the end of the stream, the frames still
        open are computed as if silence followed. Raises ValueError if the start is gone already,
        the end not yet there, or the window longer than the encoder takes.
        """
        if not self.start_samples <= start_samples < end_samples <= self._end_samples:
            raise ValueError(f"window [{start_samples}, {end_samples}) is not in the buffer")
        first = start_samples // HOP_SAMPLES - self._first_frame
        last = -(-end_samples // HOP_SAMPLES) - self._first_frame
        if last - first > MAX_FRAMES:
            raise ValueError(f"window of {last - first} frames; legal: 1 to {MAX_FRAMES}")
        frames = self._joined()
        if last > frames.shape[1]:
            frames = np.concatenate([frames, self._mel.tail()], axis=1)
        return np.ascontiguousarray(frames[:, first:last])

    def discard_before(self, sample: int) -> None:
        """Forget whole frames before `sample`."""
        n_frames = min(sample // HOP_SAMPLES - self._first_frame, self._joined().shape[1])
        if n_frames <= 0:
            return
        self._chunks = [self._joined()[:, n_frames:].copy()]
        self._first_frame += n_frames

    def _joined(self) -> FloatArray:
        if len(self._chunks) != 1:
            empty: FloatArray = np.zeros((self._n_mels, 0), dtype=np.float32)
            self._chunks = [np.concatenate(self._chunks, axis=1) if self._chunks else empty]
        return self._chunks[0]
