"""When was each spoken word first shown, and when was it final? Labelled recordings and the answer.

Pure but for `load_labels`, which reads one JSON file; knows no socket. Times of words are seconds of
audio; times of updates are the client's monotonic clock; `due_s` maps the one to the other.
Invariant: a word counts as shown or final only where the alignment says that it is this word, and it is
never matched before its sound has begun.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BadInputError
from engine.wer import Pair, WordErrors, align, count_errors, normalise
from realtime.client.messages import Update

__all__ = ["GoldWord", "Recording", "StreamWords", "WordTimes", "load_labels", "percentile", "word_times"]


@dataclass(frozen=True)
class GoldWord:
    """One normalised word that was really spoken, with its time in the audio."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Recording:
    """A labelled recording."""

    path: Path
    language: str
    duration_s: float
    text: str
    words: tuple[GoldWord, ...]


@dataclass(frozen=True)
class WordTimes:
    """When a word was first shown and when it was completed, on the client's clock; None: never.

    `settled_s` is when a completed word stood in its place, be it the right one or another.
    """

    word: GoldWord
    shown_s: float | None
    committed_s: float | None
    settled_s: float | None = None


@dataclass(frozen=True)
class StreamWords:
    """All words of a stream and the error counts of its completed text.

    `shown_after_s` and `final_after_s` hold, for each word that ever was shown or final, the seconds from
    the end of its sound to that moment.
    """

    words: tuple[WordTimes, ...]
    errors: WordErrors
    shown_after_s: tuple[float, ...]
    final_after_s: tuple[float, ...]


def load_labels(path: Path) -> tuple[Recording, ...]:
    """Read a label file: a JSON list of recordings with `file, language, duration, text, segments`.

    Raises BadInputError if it cannot be read.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Recording(
                path.parent / entry["file"],
                entry["language"],
                float(entry["duration"]),
                entry["text"],
                tuple(
                    GoldWord(word, float(start), float(end))
                    for segment in entry["segments"]
                    for text, start, end in segment["words"]
                    for word in normalise(text)
                ),
            )
            for entry in entries
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError("labels", str(path), f"a readable label file ({type(error).__name__})") from None


def word_times(gold: Sequence[GoldWord], updates: Sequence[Update], due_s: Callable[[float], float]) -> StreamWords:
    """Match what was shown with what was said.

    `due_s(t)` is the clock's time at which second `t` of the audio had been recorded. The completed
    text is aligned as a whole; each provisional text only with the words that follow the text
    completed by then and had begun by then, since equal words may come again later.
    """
    completed, committed_s = _completed_words(updates)
    pairs = align([word.text for word in gold], completed)
    final: list[float | None] = [None] * len(gold)
    settled: list[float | None] = [None] * len(gold)
    for pair in pairs:
        if pair.reference is not None and pair.hypothesis is not None:
            settled[pair.reference] = committed_s[pair.hypothesis]
            if pair.is_match:
                final[pair.reference] = committed_s[pair.hypothesis]
    shown = list(final)
    reached = _reached(pairs, len(completed))
    starts_s = [due_s(word.start_s) for word in gold]
    n_completed = 0
    for update in updates:
        n_completed += sum(len(normalise(segment.text)) for segment in update.completed)
        first = reached[n_completed]
        begun = gold[first : bisect_right(starts_s, update.at_s)]
        guess = normalise(update.provisional.text) if update.provisional else ()
        for pair in align([word.text for word in begun], guess):
            if pair.is_match and pair.reference is not None:
                place = first + pair.reference
                shown[place] = _earliest(shown[place], update.at_s)
    times = tuple(map(WordTimes, gold, shown, final, settled))
    return StreamWords(
        times,
        count_errors(pairs),
        tuple(item.shown_s - due_s(item.word.end_s) for item in times if item.shown_s is not None),
        tuple(item.committed_s - due_s(item.word.end_s) for item in times if item.committed_s is not None),
    )


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` (0 to 1) of the values do not exceed; None if there are none."""
    if not values:
        return None
    rank = max(1, -int(-share * len(values) // 1))
    return sorted(values)[rank - 1]


def _completed_words(updates: Sequence[Update]) -> tuple[list[str], list[float]]:
    words: list[str] = []
    times_s: list[float] = []
    for update in updates:
        for segment in update.completed:
            spoken = normalise(segment.text)
            words.extend(spoken)
            times_s.extend([update.at_s] * len(spoken))
    return words, times_s


def _reached(pairs: Sequence[Pair], n_completed: int) -> list[int]:
    """For each number of completed words, how many words of the reference they account for."""
    reached = [0] * (n_completed + 1)
    for pair in pairs:
        if pair.hypothesis is not None:
            before = reached[pair.hypothesis]
            reached[pair.hypothesis + 1] = before if pair.reference is None else pair.reference + 1
    return reached


def _earliest(one: float | None, other: float) -> float:
    return other if one is None else min(one, other)
