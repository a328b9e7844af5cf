"""What worker-faster_whisper passes to faster-whisper's `transcribe` for a job that says nothing.

Imports nothing, so that a replica's start takes no longer for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["WORKER_OPTIONS"]

WORKER_OPTIONS: Mapping[str, Any] = {
    "task": "transcribe",
    "beam_size": 5,
    "best_of": 5,
    "patience": 1.0,
    "length_penalty": 0.0,
    "temperature": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0),
    "compression_ratio_threshold": 2.4,
    "log_prob_threshold": -1.0,
    "no_speech_threshold": 0.6,
    "condition_on_previous_text": True,
    "initial_prompt": None,
    "suppress_blank": True,
    "suppress_tokens": [-1],
    "without_timestamps": False,
    "max_initial_timestamp": 1.0,
    "word_timestamps": False,
    "vad_filter": False,
}
"""All are the library's own defaults but length_penalty."""
