"""From the result of a decode to words on the sample clock, less what cannot have been said. Pure."""

from __future__ import annotations

from engine.types import SAMPLE_RATE_HZ, WindowResult
from realtime.stability import TimedWord, normalised

__all__ = ["timed_words"]

HALLUCINATION_LOGPROB = -1.0
"""Below this mean log-probability (OpenAI's threshold) a window that sounds like no speech is dropped."""


def timed_words(result: WindowResult, start: int, end: int, no_speech_thresh: float) -> list[TimedWord]:
    """The words of a window [start, end) in samples; none if it is no speech, or nothing but punctuation."""
    is_unlikely = result.avg_logprob < HALLUCINATION_LOGPROB and result.no_speech_prob > no_speech_thresh
    if is_unlikely or not any(normalised(word.text) for word in result.words):
        return []
    return [
        TimedWord(
            word.text,
            min(end, start + int(word.start_s * SAMPLE_RATE_HZ)),
            min(end, start + int(word.end_s * SAMPLE_RATE_HZ)),
            word.probability,
        )
        for word in result.words
        if word.text.strip()
    ]
