"""From the words of a window to segments of a recording, and speech for which there are no words.

Pure. Invariants: segments ascend, do not overlap and do not leave their stretch; their texts, joined, are the
texts of the words, joined; tokens likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from engine.recording_cut import FRAME_S, SPEECH_PROBABILITY, Stretch
from engine.sentences import ends_sentence
from engine.types import FileSegment, WindowResult, Word

__all__ = ["GapFinder", "in_order", "segments_of"]

SPLIT_PAUSE_S = 1.0
"""So long a pause ends a segment, whatever was said before it."""
MAX_SEGMENT_S = 30.0
MAX_SEGMENT_CHARS = 200
"""A paragraph of three lines; nobody reads more at once."""
MIN_GAP_S = 2.0
"""Shorter speech without text is breath, laughter or a word whose time is a little off."""
NEAR_WORD_S = 0.5
"""Word times are that uncertain."""
MAX_HOLE_S = 0.3
"""Speech with shorter holes is one stretch of speech."""


def in_order(words: Iterable[Word], not_before_s: float) -> list[Word]:
    """The words, none of which begins before `not_before_s` or the end of the one before it."""
    placed = []
    floor_s = not_before_s
    for word in words:
        start_s = max(floor_s, word.start_s)
        floor_s = max(start_s, word.end_s)
        placed.append(replace(word, start_s=start_s, end_s=floor_s))
    return placed


def segments_of(stretch: Stretch, result: WindowResult, language: str, not_before_s: float = 0.0) -> list[FileSegment]:
    """The segments of one window, in seconds of the recording; none begins before `not_before_s`."""
    segments = []
    for said in _groups(in_order(map(stretch.placed, result.words), not_before_s)):
        text = "".join(word.text for word in said)
        if not text.strip():
            continue
        segments.append(
            FileSegment(
                start_s=said[0].start_s,
                end_s=said[-1].end_s,
                text=text,
                language=language,
                words=tuple(said),
                tokens=tuple(token for word in said for token in word.tokens),
                temperature=result.temperature,
                avg_logprob=result.avg_logprob,
                compression_ratio=result.compression_ratio,
                no_speech_prob=result.no_speech_prob,
            )
        )
    return segments


def _groups(words: Sequence[Word]) -> list[list[Word]]:
    groups: list[list[Word]] = []
    n_chars = 0
    for word in words:
        if not groups or _begins(groups[-1], n_chars, word):
            groups.append([])
            n_chars = 0
        groups[-1].append(word)
        n_chars += len(word.text)
    return groups


def _begins(group: Sequence[Word], n_chars: int, word: Word) -> bool:
    """True if `word` begins a new segment behind `group`."""
    return (
        ends_sentence(group[-1].text)
        or word.start_s - group[-1].end_s > SPLIT_PAUSE_S
        or word.end_s - group[0].start_s > MAX_SEGMENT_S
        or n_chars + len(word.text) > MAX_SEGMENT_CHARS
    )


class GapFinder:
    """Collects speech for which there is no text, over a whole recording."""

    def __init__(self) -> None:
        self._gaps: list[tuple[float, float]] = []

    def look(self, stretch: Stretch, spoken_s: Iterable[tuple[float, float]]) -> None:
        """Take the next stretch, and when the words in it were said, in seconds of the recording, ascending."""
        at_s = stretch.frame_starts_s()
        is_bare = stretch.probabilities > SPEECH_PROBABILITY
        times = [(start_s - NEAR_WORD_S - FRAME_S, end_s + NEAR_WORD_S) for start_s, end_s in spoken_s]
        if times:
            starts = np.array([start_s for start_s, _ in times])
            ends = np.maximum.accumulate([end_s for _, end_s in times])
            before = np.searchsorted(starts, at_s, side="right") - 1
            is_bare = is_bare & ~((before >= 0) & (at_s <= ends[before]))
        for start_s in at_s[is_bare].tolist():
            if self._gaps and start_s - self._gaps[-1][1] <= MAX_HOLE_S:
                self._gaps[-1] = (self._gaps[-1][0], start_s + FRAME_S)
            else:
                self._drop_short()
                self._gaps.append((start_s, start_s + FRAME_S))

    def found(self) -> list[tuple[float, float]]:
        """(start, end) in seconds of all stretches of speech without text, of MIN_GAP_S or more."""
        self._drop_short()
        return list(self._gaps)

    def _drop_short(self) -> None:
        if self._gaps and self._gaps[-1][1] - self._gaps[-1][0] < MIN_GAP_S:
            del self._gaps[-1]
