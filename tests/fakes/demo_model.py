"""The demo model in this process, as tests need it."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.clock import MonotonicClock
from engine.mel import window_features
from engine.types import BatchResult, FloatArray, JobClass, WindowJob
from engine.whisper import EncodedBatch, WhisperBackend
from engine.window_decode import decode_batch
from engine.window_model import DecodeOptions
from tests.fakes.demo_audio import MODEL_DIR, Sample, log_mel

__all__ = ["GREEDY", "CountingModel", "batch", "encode", "features", "load", "window"]

GREEDY = DecodeOptions(beam_size=1, max_new_tokens=224)


def load(**options: Any) -> WhisperBackend:
    """Load it on the CPU, on one thread."""
    given = {"name": "demo", "is_demo": True, "device": "cpu", "cpu_threads": 1, **options}
    return WhisperBackend(MODEL_DIR, **given)


def features(*chosen: Sample) -> FloatArray:
    """Normalised features of whole recordings, padded to one length."""
    mels = [log_mel(sample.audio) for sample in chosen]
    n_frames = max(mel.shape[1] for mel in mels) + 100
    return np.stack([window_features(mel, n_frames) for mel in mels])


def encode(backend: WhisperBackend, *chosen: Sample) -> EncodedBatch:
    """Encode whole recordings."""
    return backend.encode(features(*chosen))


def window(mel: FloatArray, language: str | None, job_class: JobClass = JobClass.FINAL, **more: Any) -> WindowJob:
    return WindowJob("a", job_class, mel, language, **more)


def batch(backend: WhisperBackend, *jobs: WindowJob) -> BatchResult:
    """Decode windows together."""
    return decode_batch(backend, backend.info, jobs, MonotonicClock())


class CountingModel:
    """A CTranslate2 model whose calls are noted: (method, number of rows)."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.calls: list[tuple[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, features: Any) -> Any:
        self.calls.append(("encode", features.shape[0]))
        return self._model.encode(features)

    def generate(self, features: Any, prompts: Any, **options: Any) -> Any:
        self.calls.append(("generate", len(prompts)))
        return self._model.generate(features, prompts, **options)

    def detect_language(self, features: Any) -> Any:
        self.calls.append(("detect", features.shape[0]))
        return self._model.detect_language(features)

    def align(self, features: Any, start: Any, texts: Any, frames: Any) -> Any:
        self.calls.append(("align", len(texts)))
        return self._model.align(features, start, texts, frames)
