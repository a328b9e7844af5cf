"""Where a recording is cut into the stretches that are decoded.

Audio that is to be decoded comes in frame by frame; what was left out in between is simply not there. As soon
as more has come than a stretch may hold, a stretch is cut off in a pause: a late and a long one, since the
model takes as long for a short stretch as for a full one, and words lose context at a cut. Where there is no
pause, it is cut where speech is least likely.

Pure. Invariants: every frame is in exactly one stretch, in order; no stretch is longer than its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from engine.types import SAMPLE_RATE_HZ, FloatArray, Word
from engine.vad import VAD_FRAME_SAMPLES

__all__ = ["FRAME_S", "SPEECH_PROBABILITY", "Cutter", "Probabilities", "Stretch", "best_cut"]

Probabilities: TypeAlias = npt.NDArray[np.float16]
"""One per frame of 512 samples, halved in size: many of them are kept for long."""

FRAME_S = VAD_FRAME_SAMPLES / SAMPLE_RATE_HZ
SPEECH_PROBABILITY = 0.5
"""Silero's own threshold for speech."""
PAUSE_PROBABILITY = 0.3
"""Below this nobody speaks; plosives inside of words stay above."""
MIN_PAUSE_FRAMES = 3
"""A pause of about 0.1 s; shorter dips stand inside of words."""
LONG_PAUSE_S = 1.0
"""All longer pauses are equally good places for a cut."""
LATENESS = 1.0
"""What it is worth to fill a stretch, in seconds of pause. Measured on the demo recordings (3,500 words, stretches
of 5 to 15 s): at 2.0 4 % fewer stretches, and up to three times the word errors, since more sentences are cut."""
EARLIEST_PAUSE = 0.3
"""Part of the longest stretch before which no pause is looked for. Measured likewise: at 0.5 up to four times the
word errors, where a stretch holds two sentences and a half; at 0.15 the same as at 0.3."""
EARLIEST_DIP = 0.75
"""Part of the longest stretch before which it is not cut if there is no pause."""


@dataclass(frozen=True)
class Stretch:
    """Audio that is decoded at once: `pieces` of the recording, (first sample, sample after the last), joined.

    `probabilities` of speech belong to the joined audio, a frame for each 512 samples.
    """

    pieces: tuple[tuple[int, int], ...]
    probabilities: Probabilities

    @property
    def start_s(self) -> float:
        """Where it begins in the recording."""
        return self.pieces[0][0] / SAMPLE_RATE_HZ

    @property
    def end_s(self) -> float:
        """Where it ends in the recording."""
        return self.pieces[-1][1] / SAMPLE_RATE_HZ

    @property
    def n_samples(self) -> int:
        """Length of the joined audio."""
        return sum(end - start for start, end in self.pieces)

    @property
    def speech_s(self) -> float:
        """How much of it is speech."""
        return float(np.count_nonzero(self.probabilities > SPEECH_PROBABILITY)) * FRAME_S

    def frame_starts_s(self) -> FloatArray:
        """Where each frame begins in the recording."""
        starts = [np.arange(start, end, VAD_FRAME_SAMPLES) for start, end in self.pieces]
        seconds: FloatArray = (np.concatenate(starts) / SAMPLE_RATE_HZ).astype(np.float32)
        return seconds

    def place(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Seconds in the joined audio -> seconds in the recording, within the piece that holds the middle."""
        middle = (start_s + end_s) / 2 * SAMPLE_RATE_HZ
        offset = 0
        for first, end in self.pieces:
            if middle < offset + end - first or (first, end) == self.pieces[-1]:
                break
            offset += end - first
        shift_s = (first - offset) / SAMPLE_RATE_HZ
        low_s, high_s = first / SAMPLE_RATE_HZ, end / SAMPLE_RATE_HZ
        return min(high_s, max(low_s, start_s + shift_s)), min(high_s, max(low_s, end_s + shift_s))

    def placed(self, word: Word) -> Word:
        """A word of the joined audio at its time in the recording."""
        start_s, end_s = self.place(word.start_s, word.end_s)
        return Word(word.text, start_s, end_s, word.probability, word.tokens)

    def split(self, frame: int) -> tuple[Stretch, Stretch]:
        """The stretch before `frame` of the joined audio, and the rest; 0 < frame < number of frames."""
        left = frame * VAD_FRAME_SAMPLES
        before, after = [], []
        for start, end in self.pieces:
            middle = min(end, start + left)
            left -= middle - start
            if middle > start:
                before.append((start, middle))
            if middle < end:
                after.append((middle, end))
        return (
            Stretch(tuple(before), self.probabilities[:frame]),
            Stretch(tuple(after), self.probabilities[frame:]),
        )

    def best_split(self) -> int:
        """The frame before which to split it in two."""
        n_frames = len(self.probabilities)
        joints = np.cumsum([-(-(end - start) // VAD_FRAME_SAMPLES) for start, end in self.pieces])[:-1]
        third = max(1, n_frames // 3)
        return best_cut(self.probabilities, joints.tolist(), third, third, n_frames - third, lateness=0.0)


def best_cut(
    probabilities: Probabilities,
    joints: Sequence[int],
    first_pause: int,
    first_dip: int,
    last: int,
    lateness: float = LATENESS,
) -> int:
    """The frame before which to cut, at most `last`.

    `joints` are frames before which silence was left out: the longest pauses of all. Pauses count from frame
    `first_pause` on; without one it is the least likely speech from `first_dip` on.
    """
    best, best_score = 0, 0.0
    for start, end in _quiet_runs(probabilities[: last + 1], joints):
        joint = next((each for each in joints if start <= each <= end), None)
        cut = min(last, (start + end + 1) // 2 if joint is None else joint)
        pause_s = LONG_PAUSE_S if joint is not None else min(LONG_PAUSE_S, (end - start) * FRAME_S)
        score = pause_s + lateness * cut / last
        if cut >= first_pause and score >= best_score:
            best, best_score = cut, score
    if best:
        return best
    around = probabilities[first_dip - 1 : last].astype(np.float32) + probabilities[first_dip : last + 1]
    return first_dip + len(around) - 1 - int(np.argmin(around[::-1]))


def _quiet_runs(probabilities: Probabilities, joints: Sequence[int]) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of pauses; a joint is one, however short the silence around it."""
    is_quiet = np.concatenate([[False], probabilities < PAUSE_PROBABILITY, [False]])
    edges = np.flatnonzero(np.diff(is_quiet)).reshape(-1, 2).tolist()
    runs = [(start, end) for start, end in edges if end - start >= MIN_PAUSE_FRAMES]
    bare = [each for each in joints if not any(start <= each <= end for start, end in runs)]
    return sorted([*runs, *((each, each) for each in bare if each < len(probabilities))])


class Cutter:
    """Collects frames, and cuts stretches of at most `max_frames` frames off."""

    def __init__(self, max_frames: int) -> None:
        self._max_frames = max_frames
        self._pieces: list[tuple[int, int]] = []
        self._samples: list[FloatArray] = []
        self._probabilities: list[Probabilities] = []
        self._n_frames = 0

    def add(self, start: int, samples: FloatArray, probabilities: Sequence[float]) -> None:
        """Take frames that begin at sample `start` of the recording; only the very last one may be short."""
        end = start + len(samples)
        if self._pieces and self._pieces[-1][1] == start:
            self._pieces[-1] = (self._pieces[-1][0], end)
        else:
            self._pieces.append((start, end))
        self._samples.append(samples)
        self._probabilities.append(np.array(probabilities, dtype=np.float16))
        self._n_frames += len(probabilities)

    def take(self) -> tuple[Stretch, FloatArray] | None:
        """A full stretch and its joined samples, if there is more audio than fits into one."""
        if self._n_frames <= self._max_frames:
            return None
        stretch, samples = self._joined()
        joints = np.cumsum([(end - start) // VAD_FRAME_SAMPLES for start, end in stretch.pieces])[:-1].tolist()
        first_pause = max(1, int(EARLIEST_PAUSE * self._max_frames))
        first_dip = max(1, int(EARLIEST_DIP * self._max_frames))
        cut = best_cut(stretch.probabilities, joints, first_pause, first_dip, self._max_frames)
        taken, rest = stretch.split(cut)
        self._clear()
        self._pieces = list(rest.pieces)
        self._samples = [samples[cut * VAD_FRAME_SAMPLES :].copy()]
        self._probabilities = [rest.probabilities.copy()]
        self._n_frames = len(rest.probabilities)
        return taken, samples[: cut * VAD_FRAME_SAMPLES]

    def flush(self) -> tuple[Stretch, FloatArray] | None:
        """The last stretch, once all audio has come and `take` has nothing more."""
        if not self._n_frames:
            return None
        last = self._joined()
        self._clear()
        return last

    def _joined(self) -> tuple[Stretch, FloatArray]:
        stretch = Stretch(tuple(self._pieces), np.concatenate(self._probabilities))
        return stretch, np.concatenate(self._samples)

    def _clear(self) -> None:
        self._pieces, self._samples, self._probabilities, self._n_frames = [], [], [], 0
