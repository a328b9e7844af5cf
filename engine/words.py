"""From aligned token groups to words with times.

A piece is what the tokenizer calls a word: a group of tokens with the time at which the alignment
enters and leaves it. Punctuation is not spoken, so it joins its neighbour's text and gives it no
time: measured on the demo model's 830 labelled words, the mean error of word ends falls from 0.14
to 0.06 s, since the alignment parks a full stop on the whole pause behind it.

Pure. Invariants: the texts of the words, joined, are the texts of the pieces, joined; tokens
likewise; 0 <= start <= end <= next start, and no time lies behind the window's end.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from engine.types import FRAMES_PER_SECOND, Word

__all__ = ["Piece", "build_words", "pieces_of"]

SECONDS_PER_POSITION = 2 / FRAMES_PER_SECOND
"""The encoder halves the mel frames."""
OPENING = frozenset("\"'“¿¡([{-«")
"""Marks that belong to the word behind them."""
CLOSING = frozenset("\"'.。,,!!??::;”)]}、…»%")
"""Marks that belong to the word before them."""
SENTENCE_ENDS = (".", "。", "!", "!", "?", "?")
MAX_TYPICAL_WORD_S = 0.7
"""A median above this says that the alignment failed, not that people speak slowly."""
LONG_WORD = 2.0
"""The first word behind a pause lasts at most this many medians: the alignment likes to begin it in
the pause (measured: mean error of starts 0.063 -> 0.059 s)."""


@dataclass(frozen=True)
class Piece:
    """Tokens that the tokenizer keeps together, and where the alignment puts them (seconds)."""

    text: str
    tokens: tuple[int, ...]
    start_s: float
    end_s: float
    probability: float


def pieces_of(
    texts: Sequence[str],
    groups: Sequence[Sequence[int]],
    alignment: Iterable[tuple[int, int]],
    probabilities: Sequence[float],
) -> Iterator[Piece]:
    """Give token groups their times.

    `alignment` holds pairs (index of a token, encoder position), in order, and one token more than
    the groups do (the end of text); `probabilities` has one entry per token.
    """
    entered_s: dict[int, float] = {}
    for index, position in alignment:
        # The library tells -1 for tokens that it places before the first position.
        entered_s.setdefault(index, max(0, position) * SECONDS_PER_POSITION)
    begin, start_s = 0, entered_s.get(0, 0.0)
    for text, group in zip(texts, groups, strict=True):
        end = begin + len(group)
        # A token that the alignment skips begins where the one before it did.
        end_s = entered_s.get(end, start_s)
        probability = statistics.fmean(probabilities[begin:end]) if end <= len(probabilities) else 0.0
        yield Piece(text, tuple(group), start_s, end_s, probability)
        begin, start_s = end, end_s


def build_words(pieces: Iterable[Piece], n_frames: int, *, is_spaced: bool) -> tuple[Word, ...]:
    """Merge pieces into words.

    `n_frames` mel frames of content bound the times. `is_spaced`: words of this language are
    separated by blanks, so a piece without a leading one continues the word before it.
    """
    words = [_as_word(group) for group in _groups(pieces, is_spaced)]
    return _in_order(_shorten_after_pauses(words), n_frames / FRAMES_PER_SECOND)


def _groups(pieces: Iterable[Piece], is_spaced: bool) -> list[list[Piece]]:
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and _joins(groups[-1], piece, is_spaced):
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def _joins(group: Sequence[Piece], piece: Piece, is_spaced: bool) -> bool:
    if all(set(before.text.strip()) <= OPENING for before in group):
        return True
    if piece.text.startswith(" "):
        return False
    return is_spaced or set(piece.text) <= CLOSING


def _as_word(group: Sequence[Piece]) -> Word:
    spoken = [piece for piece in group if any(char.isalnum() for char in piece.text)] or list(group)
    weights = [max(1, len(piece.tokens)) for piece in spoken]
    total = sum(weight * piece.probability for weight, piece in zip(weights, spoken, strict=True))
    return Word(
        text="".join(piece.text for piece in group),
        start_s=spoken[0].start_s,
        end_s=spoken[-1].end_s,
        probability=total / sum(weights),
        tokens=tuple(token for piece in group for token in piece.tokens),
    )


def _shorten_after_pauses(words: Sequence[Word]) -> list[Word]:
    durations = [word.end_s - word.start_s for word in words if word.end_s > word.start_s]
    if not durations:
        return list(words)
    longest_s = LONG_WORD * min(MAX_TYPICAL_WORD_S, statistics.median(durations))
    shortened = []
    for index, word in enumerate(words):
        begins = index == 0 or words[index - 1].text.endswith(SENTENCE_ENDS)
        if begins and word.end_s - word.start_s > longest_s:
            word = replace(word, start_s=word.end_s - longest_s)
        shortened.append(word)
    return shortened


def _in_order(words: Sequence[Word], end_s: float) -> tuple[Word, ...]:
    ordered = []
    floor_s = 0.0
    for word in words:
        start_s = min(max(word.start_s, floor_s), end_s)
        floor_s = min(max(word.end_s, start_s), end_s)
        ordered.append(replace(word, start_s=start_s, end_s=floor_s))
    return tuple(ordered)
