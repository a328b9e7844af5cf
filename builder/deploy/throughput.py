"""How fast a rented GPU could transcribe, and how much memory a model takes: estimates from data sheets.

The figures are computed by `python -m bench.roofline --json` and stand in `throughput.json`; a test holds them equal.
They rank cards; nobody measured them. Pure but for reading that file once.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

__all__ = ["LABEL", "memory_needed_gb", "price_per_audio_hour", "shape_of", "speed", "weights_gb"]

LABEL = "estimate from data sheets"
"""Stands wherever these figures are shown."""
BATCH_WINDOWS = 16
"""Windows of 30 s in flight that memory is counted for."""
RUNTIME_GB = 1.5
"""CUDA's own memory, libraries and fragments."""
_BYTES_OF_FLOAT16 = 2
_BYTES_PER_WEIGHT = {"float32": 4.0, "int8": 1.0, "int8_float32": 1.0, "int8_float16": 1.0, "int8_bfloat16": 1.0}
_SIZES = ("medium", "small", "base", "tiny")


@lru_cache(maxsize=1)
def _figures() -> dict[str, Any]:
    figures: dict[str, Any] = json.loads(Path(__file__).with_name("throughput.json").read_text(encoding="utf-8"))
    return figures


def shape_of(model: str) -> str | None:
    """The size whose figures hold for `model` (a size, a Hugging Face id, a directory); None if the name tells none.

    Distilled small and medium models are faster than their size; theirs are not known.
    """
    name = model.lower().rstrip("/").rpartition("/")[2]
    is_distilled = "distil" in name
    if "turbo" in name:
        return "large-v3-turbo"
    if "large" in name:
        return "distil-large-v3" if is_distilled else "large-v3"
    return None if is_distilled else next((size for size in _SIZES if size in name), None)


def speed(gpu_id: str, model: str) -> float | None:
    """Seconds of recordings per second on one GPU of the catalog; None if its data sheet or the model is not known."""
    shape = shape_of(model)
    figure = _figures()["audio_s_per_s"].get(gpu_id, {}).get(shape)
    return None if figure is None else float(figure)


def price_per_audio_hour(price_per_h: float | None, audio_s_per_s: float | None) -> float | None:
    """$ for one hour of recordings, if the GPU is busy all the time."""
    return None if price_per_h is None or not audio_s_per_s else price_per_h / audio_s_per_s


def weights_gb(model: str) -> float | None:
    """Size of the model's file (float16) in GB; None if not known."""
    shape = shape_of(model)
    return None if shape is None else float(_figures()["memory_gb"][shape]["weights"])


def memory_needed_gb(model: str, compute_type: str = "auto") -> int | None:
    """GPU memory in GB for the weights and a full batch of windows; None if the model is not known."""
    shape, weights = shape_of(model), weights_gb(model)
    if shape is None or weights is None:
        return None
    scale = _BYTES_PER_WEIGHT.get(compute_type, _BYTES_OF_FLOAT16) / _BYTES_OF_FLOAT16
    return math.ceil(weights * scale + BATCH_WINDOWS * float(_figures()["memory_gb"][shape]["window"]) + RUNTIME_GB)
