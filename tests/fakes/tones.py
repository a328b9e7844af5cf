"""Tone words: synthetic speech that a few lines of numpy understand without error.

Word number k (0 to 999) is three sinusoids at once, one of ten frequencies in each of three bands,
which spell the three digits of k. `speak` makes audio of them, `read_words` reads them back from a
raw log10-mel window. So lost, doubled, reordered or damaged audio is counted exactly.

A whole word that lasts neither as long as it should nor stands at an edge of the window is damaged and
read with a `~`: audio was cut out of it, or put into it.

Unrealistic use to avoid: words closer together than MIN_GAP_S, louder or softer than AMPLITUDE by 6 dB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from engine.mel import LogMelStream
from engine.types import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, FloatArray, Word

__all__ = [
    "GAP_S",
    "MIN_GAP_S",
    "N_WORDS",
    "WORD_S",
    "Spoken",
    "TextOf",
    "read_words",
    "silence",
    "speak",
    "word_number",
    "word_text",
]

N_WORDS = 1_000
WORD_S = 0.30
GAP_S = 0.08
MIN_GAP_S = 0.05
"""Two frames of 25 ms that hear neither neighbour."""
RAMP_S = 0.02
AMPLITUDE = 0.1
"""Of each of the three tones."""
FIRST_HZ, LEAST_STEP_HZ, STEP = 300.0, 160.0, 1.065
"""Neighbouring tones are told apart if they are a main lobe (4 bins of 40 Hz) or 1.7 mel bins apart."""
BANDS, DIGITS = 3, 10
FAINTEST = 0.05
"""A frame belongs to a word if each band has at least this part of the power of a steady tone."""
CLEAREST = 0.8
"""Least cosine between a frame and the pattern of a digit."""
HALF = 0.5
CLICK = 0.3
"""Less than this part of a word is noise to anybody."""
MAX_DAMAGE = 0.12
"""Part of its length by which a whole word may miss WORD_S."""
SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu")

Cut = Literal["skip", "garble"]
"""What too little of a word at an edge of the window reads as: nothing, or some other text (if it is more
than a click)."""


@dataclass(frozen=True)
class Spoken:
    """A word that was said: its number and its place in the audio, in seconds."""

    number: int
    start_s: float
    end_s: float


TextOf = dict[int, str]
"""Texts, leading blank included, of words that shall not be spelt in syllables."""


def word_text(number: int) -> str:
    """What word `number` is called, with a leading blank: one syllable per digit, so " bacedi" for 12."""
    return " " + "".join(SYLLABLES[int(digit)] for digit in f"{number:03d}")


def word_number(text: str) -> int:
    """The inverse of `word_text`, whatever the case and punctuation. Raises ValueError."""
    letters = "".join(char for char in text.casefold() if char.isalpha())
    if len(letters) != 2 * BANDS:
        raise ValueError(f"{text!r} is no tone word")
    return int("".join(str(SYLLABLES.index(letters[at : at + 2])) for at in range(0, 2 * BANDS, 2)))


@lru_cache(maxsize=1)
def _tones_hz() -> tuple[float, ...]:
    ladder = [FIRST_HZ]
    while len(ladder) < BANDS * (DIGITS + 1):
        ladder.append(max(ladder[-1] + LEAST_STEP_HZ, ladder[-1] * STEP))
    # Every eleventh rung is left out, so that the edge of a band belongs to no digit.
    return tuple(tone for rung, tone in enumerate(ladder) if rung % (DIGITS + 1) != DIGITS)


@lru_cache(maxsize=N_WORDS)
def _sound(number: int) -> FloatArray:
    n_samples = round(WORD_S * SAMPLE_RATE_HZ)
    time_s = np.arange(n_samples) / SAMPLE_RATE_HZ
    digits = [int(digit) for digit in f"{number:03d}"]
    tones = [_tones_hz()[band * DIGITS + digit] for band, digit in enumerate(digits)]
    sound = AMPLITUDE * np.sum([np.sin(2 * np.pi * tone * time_s) for tone in tones], axis=0)
    n_ramp = round(RAMP_S * SAMPLE_RATE_HZ)
    ramp = np.sin(np.linspace(0, np.pi / 2, n_ramp)) ** 2
    sound[:n_ramp] *= ramp
    sound[n_samples - n_ramp :] *= ramp[::-1]
    return np.asarray(sound, dtype=np.float32)


def silence(duration_s: float) -> FloatArray:
    """Nothing, float32."""
    return np.zeros(round(duration_s * SAMPLE_RATE_HZ), dtype=np.float32)


def speak(
    numbers: Sequence[int],
    pauses_s: Sequence[float] = (GAP_S,),
    *,
    lead_s: float = 0.3,
    tail_s: float = 1.0,
) -> tuple[FloatArray, list[Spoken]]:
    """Audio of the words, float32 at 16 kHz, and where they are.

    `pauses_s` follow the words in turn, over and over; the last word is followed by `tail_s` instead.
    """
    if min(pauses_s) < MIN_GAP_S:
        raise ValueError(f"pauses_s: {min(pauses_s)}; legal: {MIN_GAP_S} or more")
    parts = [silence(lead_s)]
    spoken = []
    at = len(parts[0])
    for index, number in enumerate(numbers):
        parts.append(_sound(number))
        spoken.append(Spoken(number, at / SAMPLE_RATE_HZ, (at + len(parts[-1])) / SAMPLE_RATE_HZ))
        pause_s = pauses_s[index % len(pauses_s)] if index < len(numbers) - 1 else tail_s
        parts.append(silence(pause_s))
        at += len(parts[-2]) + len(parts[-1])
    return np.concatenate(parts), spoken


def read_words(
    log_mel: FloatArray, *, cut: Cut = "skip", needed: float = HALF, text_of: TextOf | None = None
) -> tuple[Word, ...]:
    """The words in a raw log10-mel window, float32 [n_mels, frames].

    A word that an edge of the window cuts off is read if at least the share `needed` of it is there.
    """
    n_frames = log_mel.shape[1]
    if n_frames == 0:
        return ()
    names = text_of or {}
    full = WORD_S * FRAMES_PER_SECOND
    words = []
    for number, begin, end in _runs(_numbers(log_mel)):
        # A frame hears 12 ms around its middle, so the sound begins about where its first frame stands.
        text = names.get(number, word_text(number))
        is_cut = begin <= 1 or end >= n_frames - 1
        if is_cut and end - begin < needed * full:
            if cut == "skip" or end - begin < CLICK * full:
                continue
            text = word_text((number + 111 + end - begin) % N_WORDS)
        elif not is_cut and abs(end - begin - full) > MAX_DAMAGE * full:
            text += "~"
        words.append(Word(text, begin / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND, 0.9))
    return tuple(words)


@lru_cache(maxsize=4)
def _patterns(n_mels: int) -> tuple[tuple[slice, FloatArray], ...]:
    """Per band: its mel bins, and the power of a steady tone for each digit, float32 [10, bins]."""
    tones = []
    for tone in _tones_hz():
        time_s = np.arange(SAMPLE_RATE_HZ // 10) / SAMPLE_RATE_HZ
        sound = (AMPLITUDE * np.sin(2 * np.pi * tone * time_s)).astype(np.float32)
        tones.append(10.0 ** LogMelStream(n_mels).push(sound)[:, 4])
    power = np.array(tones, dtype=np.float32)
    peaks = power.argmax(axis=1)
    patterns = []
    for band in range(BANDS):
        low = 0 if band == 0 else (peaks[band * DIGITS - 1] + peaks[band * DIGITS] + 1) // 2
        last = (band + 1) * DIGITS
        high = n_mels if band == BANDS - 1 else (peaks[last - 1] + peaks[last] + 1) // 2
        bins = slice(int(low), int(high))
        patterns.append((bins, power[band * DIGITS : last, bins]))
    return tuple(patterns)


def _numbers(log_mel: FloatArray) -> npt.NDArray[np.int64]:
    """The word that each frame belongs to; -1: none."""
    power = 10.0**log_mel
    numbers = np.zeros(log_mel.shape[1], dtype=np.int64)
    is_word = np.ones(log_mel.shape[1], dtype=np.bool_)
    for bins, patterns in _patterns(log_mel.shape[0]):
        heard = power[bins]
        lengths = np.linalg.norm(patterns, axis=1)
        likeness = (patterns / lengths[:, None]) @ heard / np.maximum(np.linalg.norm(heard, axis=0), 1e-9)
        digit = likeness.argmax(axis=0)
        loudness = heard.sum(axis=0) / patterns.sum(axis=1)[digit]
        is_word &= (likeness.max(axis=0) >= CLEAREST) & (loudness >= FAINTEST)
        numbers = numbers * DIGITS + digit
    return np.where(is_word, numbers, -1)


def _runs(numbers: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(word, first frame, frame after the last) of each stretch of frames that agree."""
    changes = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    runs = [(int(numbers[a]), a, b) for a, b in pairwise(changes)]
    return [run for run in runs if run[0] >= 0]
