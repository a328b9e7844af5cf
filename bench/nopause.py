"""Speech without pauses, made of labelled recordings: silences between words are cut short.

Pure: arrays in, arrays out. Invariants: no sample within a gold word is touched; the labels of the result
are those of its sound; between two words there is never more silence than asked for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.types import SAMPLE_RATE_HZ, FloatArray
from realtime.client.latency import GoldWord, Recording

__all__ = ["LONGEST_PAUSE_S", "SUFFIX", "without_pauses"]

LONGEST_PAUSE_S = 0.2
"""The least that counts as a pause between recordings here, and too short for a detector of speech to let go."""
SUFFIX = "_nopause"


def without_pauses(
    recording: Recording, samples: FloatArray, longest_s: float = LONGEST_PAUSE_S
) -> tuple[Recording, FloatArray]:
    """The recording with every silence longer than `longest_s` cut to that, and its labels moved along.

    Of a silence its two ends stay, half of `longest_s` each. The file name gets SUFFIX: there is no such
    file. float32 [n] at 16 kHz.
    """
    half = round(longest_s / 2 * SAMPLE_RATE_HZ)
    pieces: list[FloatArray] = []
    words: list[GoldWord] = []
    removed, kept_to = 0, 0
    for word in recording.words:
        begin = _place(word.start_s)
        if begin - kept_to > 2 * half:
            pieces.append(samples[kept_to : kept_to + half])
            removed += begin - kept_to - 2 * half
            kept_to = begin - half
        end = max(_place(word.end_s), kept_to)
        pieces.append(samples[kept_to:end])
        shift_s = removed / SAMPLE_RATE_HZ
        words.append(replace(word, start_s=word.start_s - shift_s, end_s=word.end_s - shift_s))
        kept_to = end
    pieces.append(samples[kept_to : kept_to + 2 * half])
    joined = np.concatenate(pieces)
    path = recording.path.with_stem(recording.path.stem + SUFFIX)
    made = replace(recording, path=path, duration_s=joined.size / SAMPLE_RATE_HZ, words=tuple(words))
    return made, joined


def _place(second: float) -> int:
    return round(second * SAMPLE_RATE_HZ)
