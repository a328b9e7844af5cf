"""Sample encodings for tests, by soundfile: independent of the server's own tables."""

from __future__ import annotations

import io

import numpy as np
import soundfile
import soxr

from engine.types import SAMPLE_RATE_HZ, FloatArray

SUBTYPES = {"int16": "PCM_16", "uint8": "PCM_U8", "mulaw": "ULAW", "alaw": "ALAW"}


def encode(samples: FloatArray, audio_format: str, rate_hz: int) -> bytes:
    """Mono samples at 16 kHz as headerless bytes at `rate_hz`."""
    resampled = soxr.resample(samples, SAMPLE_RATE_HZ, rate_hz)
    if audio_format == "uint8":
        return bytes(np.clip(np.round(resampled * 128 + 128), 0, 255).astype(np.uint8))
    file = io.BytesIO()
    soundfile.write(file, resampled, rate_hz, format="RAW", subtype=SUBTYPES[audio_format])
    return file.getvalue()
