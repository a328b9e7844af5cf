"""Voice activity, frame by frame: Silero VAD with the state carried from call to call.

The network is the ONNX file that faster-whisper ships (MIT licence); it is found without
importing faster-whisper, since the serving process must not load it. One ONNX session serves all
streams: the recurrent state (h, c and the last 64 samples) travels in the arguments.

This is the only import of onnxruntime in the serving process.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime

from engine.types import FloatArray

__all__ = ["VAD_FRAME_SAMPLES", "SileroDetector", "SpeechDetector"]

VAD_FRAME_SAMPLES = 512
"""Silero looks at 32 ms at a time."""
CONTEXT_SAMPLES = 64
"""Samples of the previous frame that the network sees before the new ones."""
STATE_SIZE = 128
QUIET_PROBABILITY = 0.15
QUIET_FRAMES = 31
"""After this much silence (1 s) the recurrent state starts afresh.

Over long silence the state drifts: after 60 s of digital zeros the first word of a recording that
scores 0.87 from a fresh state scores 0.38, below any usual threshold, and would be lost.
"""
MAX_RUN_FRAMES = 31
"""Frames per call of the network (1 s). What comes behind a reset is computed again, so that a long push would cost
the square of its length. Measured on 10 minutes of speech: 1.2 s of CPU; in pushes of 4 s without this limit 1.5 s,
of 30 s 3.3 s, and 48 s in one push."""


class SpeechDetector(Protocol):
    """Tells how likely each stretch of a stream is speech."""

    def push(self, samples: FloatArray) -> list[float]:
        """Take float32 samples; return one probability per completed frame of 512 samples."""
        ...


@lru_cache(maxsize=1)
def _session() -> onnxruntime.InferenceSession:
    package = importlib.util.find_spec("faster_whisper")
    if package is None or not package.submodule_search_locations:
        raise FileNotFoundError("faster-whisper is not installed; its Silero VAD file is needed")
    path = Path(package.submodule_search_locations[0]) / "assets" / "silero_vad_v6.onnx"
    options = onnxruntime.SessionOptions()
    # One thread: a frame takes 0.1 ms, and waking a pool costs more than that.
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class SileroDetector:
    """Silero VAD v6 over one stream of 16 kHz samples."""

    def __init__(self) -> None:
        self._session = _session()
        self._context: FloatArray = np.zeros(CONTEXT_SAMPLES, dtype=np.float32)
        self._pending: FloatArray = np.zeros(0, dtype=np.float32)
        self._reset()

    def push(self, samples: FloatArray) -> list[float]:
        """Take float32 samples; return one probability per completed frame of 512 samples."""
        audio = np.concatenate([self._pending, samples])
        n_frames = len(audio) // VAD_FRAME_SAMPLES
        self._pending = audio[n_frames * VAD_FRAME_SAMPLES :]
        if n_frames == 0:
            return []
        frames = audio[: n_frames * VAD_FRAME_SAMPLES].reshape(n_frames, VAD_FRAME_SAMPLES)
        contexts = np.vstack([self._context[None, :], frames[:-1, -CONTEXT_SAMPLES:]])
        self._context = frames[-1, -CONTEXT_SAMPLES:].copy()
        inputs = np.hstack([contexts, frames])
        probabilities: list[float] = []
        while len(probabilities) < n_frames:
            begin = len(probabilities)
            probabilities += self._run(inputs[begin : begin + MAX_RUN_FRAMES])
        return probabilities

    def _reset(self) -> None:
        self._hidden: FloatArray = np.zeros((1, 1, STATE_SIZE), dtype=np.float32)
        self._cell: FloatArray = np.zeros((1, 1, STATE_SIZE), dtype=np.float32)
        self._n_quiet = 0

    def _run(self, inputs: FloatArray) -> list[float]:
        """Probabilities of all frames, or of those up to a reset: how frames are grouped changes nothing."""
        found, hidden, cell = self._session.run(None, {"input": inputs, "h": self._hidden, "c": self._cell})
        probabilities = [float(p) for p in np.asarray(found).reshape(-1)]
        for index, probability in enumerate(probabilities):
            self._n_quiet = self._n_quiet + 1 if probability < QUIET_PROBABILITY else 0
            if self._n_quiet >= QUIET_FRAMES:
                self._reset()
                return probabilities[: index + 1]
        self._hidden, self._cell = hidden, cell
        return probabilities
