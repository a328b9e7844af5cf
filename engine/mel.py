"""Whisper's log-mel spectrogram, frame by frame as the audio arrives.

Frame t of a stream looks at samples [160 t - 200, 160 t + 200); before the first sample there is
silence. A stream computes every frame once; what depends on the whole window (the clamp to
8 decades below its maximum) is left to `window_features`, which runs per decode.

Constants and mel scale as in OpenAI Whisper's `audio.py` (n_fft 400, hop 160, Slaney mel with
area normalisation, 0-8 kHz). Knows nothing of models or streams' meaning; pure numpy.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.types import HOP_SAMPLES, SAMPLE_RATE_HZ, FloatArray

__all__ = ["LogMelStream", "mel_filters", "window_features"]

IndexArray: TypeAlias = npt.NDArray[np.intp]

N_FFT = 400
HALF_WINDOW_SAMPLES = N_FFT // 2
POWER_FLOOR = 1e-10
DYNAMIC_RANGE_DECADES = 8.0
SLANEY_LINEAR_HZ = 200.0 / 3.0
"""Width of one mel below 1 kHz in Slaney's Auditory Toolbox, where the scale is linear."""
SLANEY_BREAK_HZ = 1000.0
SLANEY_LOG_STEP = np.log(6.4) / 27.0


def _mel_to_hz(mels: FloatArray) -> FloatArray:
    break_mel = SLANEY_BREAK_HZ / SLANEY_LINEAR_HZ
    above = SLANEY_BREAK_HZ * np.exp(SLANEY_LOG_STEP * (mels - break_mel))
    hertz: FloatArray = np.where(mels < break_mel, mels * SLANEY_LINEAR_HZ, above)
    return hertz


@lru_cache(maxsize=4)
def mel_filters(n_mels: int) -> FloatArray:
    """Triangular mel filters of unit area, float32 [n_mels, 201]."""
    top_hz = SAMPLE_RATE_HZ / 2
    top_mel = SLANEY_BREAK_HZ / SLANEY_LINEAR_HZ + np.log(top_hz / SLANEY_BREAK_HZ) / SLANEY_LOG_STEP
    edges_hz = _mel_to_hz(np.linspace(0.0, top_mel, n_mels + 2))
    bins_hz = np.linspace(0.0, top_hz, N_FFT // 2 + 1)
    widths = np.diff(edges_hz)
    distance = edges_hz[:, None] - bins_hz[None, :]
    rising = -distance[:-2] / widths[:-1, None]
    falling = distance[2:] / widths[1:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    area = 2.0 / (edges_hz[2:] - edges_hz[:-2])
    filters: FloatArray = (triangles * area[:, None]).astype(np.float32)
    return filters


@lru_cache(maxsize=4)
def _sparse_filters(n_mels: int) -> tuple[IndexArray, FloatArray, IndexArray]:
    """(bins, weights, where each filter begins in them): the 2 % of the filters that are not zero."""
    filters = mel_filters(n_mels)
    counts = np.count_nonzero(filters, axis=1)
    bins = np.nonzero(filters)[1]
    weights: FloatArray = filters[filters != 0]
    return bins, weights, np.cumsum(counts) - counts


class LogMelStream:
    """Log10-mel frames of one stream, each computed once.

    A frame is a function of its samples, to the last bit: a matrix product would round differently for
    each number of frames, and wake a pool of threads for a few microseconds of work.
    """

    def __init__(self, n_mels: int) -> None:
        self._n_mels = n_mels
        self._bins, self._weights, self._first = _sparse_filters(n_mels)
        self._window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
        # The samples from the next frame's first one on; silence stands before the stream.
        self._pending: FloatArray = np.zeros(HALF_WINDOW_SAMPLES, dtype=np.float32)

    def push(self, samples: FloatArray) -> FloatArray:
        """Take float32 samples; return the frames they complete, float32 [n_mels, k >= 0]."""
        self._pending = np.concatenate([self._pending, samples])
        n_frames = max(0, 1 + (len(self._pending) - N_FFT) // HOP_SAMPLES)
        frames = self._frames(self._pending, n_frames)
        self._pending = self._pending[n_frames * HOP_SAMPLES :]
        return frames

    def tail(self) -> FloatArray:
        """The frames still missing for the samples pushed so far, as if silence followed.

        Changes nothing: the stream can go on afterwards.
        """
        n_frames = max(0, -(-(len(self._pending) - HALF_WINDOW_SAMPLES) // HOP_SAMPLES))
        padded = np.concatenate([self._pending, np.zeros(N_FFT + HOP_SAMPLES, dtype=np.float32)])
        return self._frames(padded, n_frames)

    def _frames(self, samples: FloatArray, n_frames: int) -> FloatArray:
        if n_frames == 0:
            return np.zeros((self._n_mels, 0), dtype=np.float32)
        views = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP_SAMPLES][:n_frames]
        spectrum = np.fft.rfft(views * self._window, axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        mel = np.add.reduceat(power[:, self._bins] * self._weights, self._first, axis=1)
        log_mel: FloatArray = np.log10(np.maximum(mel.T, POWER_FLOOR))
        return log_mel


def window_features(log_mel: FloatArray, n_frames: int) -> FloatArray:
    """What the encoder takes: clamped, scaled, padded with the window's own silence.

    `log_mel` float32 [n_mels, k]; returns C-contiguous float32 [n_mels, max(k, n_frames)].
    """
    n_mels, n_content = log_mel.shape
    if n_content == 0:
        raise ValueError("a window needs at least one frame")
    floor = np.float32(log_mel.max() - DYNAMIC_RANGE_DECADES)
    clamped = np.maximum(log_mel, floor)
    padded = np.full((n_mels, max(n_content, n_frames)), clamped.min(), dtype=np.float32)
    padded[:, :n_content] = clamped
    padded += np.float32(4.0)
    padded /= np.float32(4.0)
    return padded
