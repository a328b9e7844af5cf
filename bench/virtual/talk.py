"""Made-up conversation: what is said when, and audio of it that stands for speech.

A talk is said over and over without an end: second t of a stream is second `t % duration_s` of the talk.
Its audio is noise, loud where words are and faint elsewhere, which is enough for everything between socket
and model: levels, mel frames, endpoints. Since it is noise, no two mel frames of a talk are alike, so
a window can be found in the talk by its frames, and its words by its place (`bench.virtual.hearing`).

Rates are those of conversation: words of 0.3 s, 2.6 of them per second while somebody speaks, sentences
of 4 to 12 words with a short breath between, turns of 1 to 3 sentences with a pause after them that makes
speech the wanted share of time. With a share of 1 nobody ever pauses for longer than a breath.

Pure; the same seed gives the same talk.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from engine.mel import LogMelStream
from engine.types import HOP_SAMPLES, SAMPLE_RATE_HZ, FloatArray
from engine.vad import VAD_FRAME_SAMPLES

__all__ = [
    "MIN_TURN_PAUSE_S",
    "SaidWord",
    "Talk",
    "TalkDetector",
    "frame_key",
    "heard_wrong",
    "make_talk",
    "word_place",
]

WORD_S = (0.18, 0.42)
GAP_S = (0.04, 0.12)
BREATH_S = (0.2, 0.4)
"""Between the sentences of one turn: shorter than any endpoint."""
SENTENCE_WORDS = (4, 12)
TURN_SENTENCES = (1, 3)
MIN_TURN_PAUSE_S = 1.0
"""Longer than every endpoint, padding included: after this pause a turn is over for the server, too."""
SPREAD = (0.6, 1.4)
"""Pauses between turns, in units of what the wanted share of speech asks for on average."""
LOUD, FAINT = 0.1, 1e-4
"""Standard deviations of samples within words and between them, full scale 1: 60 dB apart."""
MEL_MARGIN_S = 0.1
"""A frame hears 25 ms; this much of the next round makes the frames at the end of a round right."""
FRAME_KEY_MELS = 8
"""Eight float32 numbers tell the frames of an hour apart: 2^184 of them exist."""
TOKENS_PER_WORD = (1, 1, 1, 2, 2)
"""1.4 tokens per word, 3.6 per second of speech: what Whisper's vocabulary needs for English."""


@dataclass(frozen=True)
class SaidWord:
    """A word of a talk, seconds from its beginning; `ends_turn`: a pause of MIN_TURN_PAUSE_S or more follows."""

    number: int
    start_s: float
    end_s: float
    n_tokens: int
    ends_sentence: bool = False
    ends_turn: bool = False

    @property
    def text(self) -> str:
        """Unlike that of any other word of the talk, with a leading blank and the sentence's full stop."""
        return f" w{self.number}" + ("." if self.ends_sentence else "")


def heard_wrong(word: SaidWord) -> str:
    """What stands for the word where it is heard wrong."""
    return f" x{word.number}"


def word_place(text: str) -> tuple[int, bool] | None:
    """The number of the word that `text` stands for, and whether it was heard right; None: no word of a talk."""
    bare = text.strip(" .")
    return (int(bare[1:]), bare[0] == "w") if bare[:1] in ("w", "x") and bare[1:].isdecimal() else None


@dataclass(frozen=True)
class Talk:
    """See the module's docstring. `samples` float32, whole numbers of mel and of detector frames."""

    words: tuple[SaidWord, ...]
    samples: FloatArray

    @property
    def duration_s(self) -> float:
        """Length of one round."""
        return len(self.samples) / SAMPLE_RATE_HZ

    @property
    def speech_share(self) -> float:
        """Part of the time in which a turn goes on, gaps and breaths included."""
        ends = [place for place, word in enumerate(self.words) if word.ends_turn]
        begins = [0, *(place + 1 for place in ends)]
        turns = [self.words[end].end_s - self.words[begin].start_s for begin, end in zip(begins, ends, strict=False)]
        return sum(turns) / self.duration_s if turns else 1.0

    @cached_property
    def is_loud(self) -> tuple[bool, ...]:
        """For each stretch of 512 samples: is most of it within words?"""
        loud = np.zeros(len(self.samples), dtype=np.float32)
        for word in self.words:
            loud[_sample(word.start_s) : _sample(word.end_s)] = 1.0
        shares = loud.reshape(-1, VAD_FRAME_SAMPLES).mean(axis=1)
        return tuple(bool(share > 0.5) for share in shares)

    def audio(self, first: int, n_samples: int) -> FloatArray:
        """`n_samples` samples of a stream from sample `first` on."""
        first %= len(self.samples)
        parts = []
        while n_samples > 0:
            part = self.samples[first : first + n_samples]
            parts.append(part)
            n_samples -= len(part)
            first = 0
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def places(self, n_mels: int) -> dict[bytes, int]:
        """The frame of the talk that has these mel values."""
        margin = round(MEL_MARGIN_S * SAMPLE_RATE_HZ)
        endless = np.concatenate([self.samples[-margin:], self.samples, self.samples[:margin]])
        frames = LogMelStream(n_mels).push(endless)[:, margin // HOP_SAMPLES :]
        n_frames = len(self.samples) // HOP_SAMPLES
        return {frame_key(frames, index): index for index in range(n_frames)}


def frame_key(log_mel: FloatArray, index: int) -> bytes:
    """What tells a mel frame from all others."""
    return log_mel[:FRAME_KEY_MELS, index].tobytes()


class TalkDetector:
    """`engine.vad.SpeechDetector` that knows the talk: 1 within words, 0 elsewhere, at no cost."""

    def __init__(self, talk: Talk) -> None:
        self._is_loud = talk.is_loud
        self._n_samples = 0
        self._n_frames = 0

    def push(self, samples: FloatArray) -> list[float]:
        """Take samples; return one probability per completed frame of 512 samples."""
        self._n_samples += len(samples)
        first, self._n_frames = self._n_frames, self._n_samples // VAD_FRAME_SAMPLES
        return [float(self._is_loud[n % len(self._is_loud)]) for n in range(first, self._n_frames)]


def make_talk(duration_s: float, speech_share: float, seed: int) -> Talk:
    """A talk of about `duration_s` (rounded up to whole turns), of which `speech_share` (0.1 to 1) is speech."""
    if not 0.1 <= speech_share <= 1:
        raise ValueError(f"speech_share: {speech_share}; legal: 0.1 to 1")
    source = random.Random(seed)  # noqa: S311 - repeatable on purpose
    words: list[SaidWord] = []
    at_s = 0.0
    while at_s < duration_s:
        turn = _turn(source, at_s, len(words), pauses=speech_share < 1)
        words += turn
        end_s = turn[-1].end_s
        at_s = end_s + _pause_s(source, end_s - at_s, speech_share)
    frame = math.lcm(HOP_SAMPLES, VAD_FRAME_SAMPLES)
    n_samples = -(-_sample(at_s) // frame) * frame
    return Talk(tuple(words), _sound(words, n_samples, seed))


def _turn(source: random.Random, at_s: float, number: int, *, pauses: bool) -> list[SaidWord]:
    turn: list[SaidWord] = []
    n_sentences = source.randint(*TURN_SENTENCES)
    for sentence in range(n_sentences):
        n_words = source.randint(*SENTENCE_WORDS)
        for n in range(n_words):
            end_s = at_s + source.uniform(*WORD_S)
            is_end = n == n_words - 1
            ends_turn = pauses and is_end and sentence == n_sentences - 1
            n_tokens = source.choice(TOKENS_PER_WORD)
            turn.append(SaidWord(number + len(turn), at_s, end_s, n_tokens, is_end, ends_turn))
            at_s = end_s + source.uniform(*(BREATH_S if is_end else GAP_S))
    return turn


def _pause_s(source: random.Random, turn_s: float, speech_share: float) -> float:
    if speech_share == 1:
        return source.uniform(*BREATH_S)
    return max(MIN_TURN_PAUSE_S, turn_s * (1 / speech_share - 1) * source.uniform(*SPREAD))


def _sound(words: list[SaidWord], n_samples: int, seed: int) -> FloatArray:
    level = np.full(n_samples, FAINT, dtype=np.float32)
    for word in words:
        level[_sample(word.start_s) : _sample(word.end_s)] = LOUD
    noise: FloatArray = np.random.default_rng(seed).standard_normal(n_samples, dtype=np.float32)
    return noise * level


def _sample(at_s: float) -> int:
    return round(at_s * SAMPLE_RATE_HZ)
