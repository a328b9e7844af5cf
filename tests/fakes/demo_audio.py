"""The recordings that ship with the demo model, as tests need them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from engine.mel import LogMelStream
from engine.types import MAX_FRAMES, FloatArray

__all__ = ["MODEL_DIR", "Sample", "log_mel", "plain_words", "samples"]

_DEMO_DIR = Path(__file__).resolve().parents[2] / "engine" / "demo_model"
MODEL_DIR = _DEMO_DIR / "model"


@dataclass(frozen=True)
class Sample:
    """One recording: float32 mono 16 kHz samples and what is said in it (word, start, end in seconds)."""

    name: str
    language: str
    text: str
    audio: FloatArray
    words: tuple[tuple[str, float, float], ...]


def samples(folder: str = "samples") -> list[Sample]:
    """The recordings of `samples` (six short ones) or `speech` (nine longer ones)."""
    found = []
    for item in json.loads((_DEMO_DIR / folder / f"{folder}.json").read_text(encoding="utf-8")):
        audio, _ = soundfile.read(_DEMO_DIR / folder / item["file"], dtype="float32")
        words = tuple((str(w[0]), float(w[1]), float(w[2])) for part in item["segments"] for w in part["words"])
        found.append(Sample(item["file"], item["language"], item["text"], audio, words))
    return found


def log_mel(audio: FloatArray, n_mels: int = 80) -> FloatArray:
    """Raw log10-mel of a whole recording, at most MAX_FRAMES frames."""
    stream = LogMelStream(n_mels)
    return np.concatenate([stream.push(audio), stream.tail()], axis=1)[:, :MAX_FRAMES]


def plain_words(text: str) -> list[str]:
    """Words without case and punctuation."""
    return "".join(char.lower() if char.isalnum() or char == "'" else " " for char in text).split()
