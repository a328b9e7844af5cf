"""Which words of a growing stream of hypotheses are final (local agreement).

Every hypothesis is a list of words with absolute times. Words that were completed before and
still lie in the decoded window are found again by text and time (edit distance) and skipped; of
the rest, the common beginning of two successive hypotheses is stable if it keeps a distance from
the edge of the audio, where the last word may be half heard. Where decodes are rare, words of which the
model is sure, well clear of the edge, are stable after one.

Pure: no samples, no sockets, no clock. After Machacek et al. 2023 (arXiv 2307.14743), with words
compared in a normalised form, so that a flickering comma does not hold a word back.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = [
    "TimedWord",
    "agreed_prefix",
    "before_loop",
    "normalised",
    "skip_completed",
    "stable_prefix",
]

MIN_WORD_S = 0.06
"""A word that takes less has lost its time: where audio breaks off in mid-speech, the model may put
several words at one place. The texts are right then, the times mean nothing."""
MAX_SHIFT = 1.0
"""What the right word at another time costs at most, by the second and in units of a wrong word: a
sentence said again, a second later, is another sentence."""
MAX_TIMELESS_SHIFT = 0.5
"""The same where one of the two words has lost its time."""
CROWD_WORDS = 3
"""So many words in a row without time are no speech yet; two happen ("a quarter")."""
AGREED_SHIFT_S = 0.5
"""Two hypotheses agree on a word only if they hear it at about the same time."""
SURE_PROBABILITY = 0.9
SURE_MARGIN_S = 0.6
"""A word this likely that ends this long before the edge needs no second hypothesis. Measured on the demo
model's recordings, decoded once in 1.5 s: half of the words are completed 0.2 s earlier, no more are wrong."""
LOOP_WORDS = 6
LOOP_SPAN_S = 0.4
"""Nobody says six words in less than this; a model that repeats itself at the edge of the audio does."""


@dataclass(frozen=True)
class TimedWord:
    """One word with its place on the sample clock, in samples; `text` keeps its leading blank.

    `tokens` are the model's ids of it, where they are known.
    """

    text: str
    start: int
    end: int
    probability: float
    tokens: tuple[int, ...] = ()


def normalised(text: str) -> str:
    """Case-folded letters and digits only (Unicode NFKC); punctuation does not count."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if char.isalnum())


def before_loop(words: Sequence[TimedWord], rate_hz: int) -> Sequence[TimedWord]:
    """The words up to where too many of them share too little time (a repetition loop).

    What is repeated was said once: a word in front that takes its time is kept.
    """
    shortest = LOOP_SPAN_S / LOOP_WORDS * rate_hz
    for first in range(len(words) - LOOP_WORDS + 1):
        if words[first + LOOP_WORDS - 1].end - words[first].start < LOOP_SPAN_S * rate_hz:
            crowd = range(first, first + LOOP_WORDS)
            return words[: next((n for n in crowd if words[n].end - words[n].start < shortest), first + 1)]
    return words


def skip_completed(completed: Sequence[TimedWord], words: Sequence[TimedWord], rate_hz: int) -> int:
    """How many of `words` stand for the `completed` ones that are still in the window.

    All of `completed` must be used up; words that match nothing count as errors, as does the
    distance between the boundary and the end of the last completed word. So a word that was heard
    a little differently this time is neither said twice nor lost.
    """
    if not completed:
        return 0
    old = [normalised(word.text) for word in completed]
    row = [float(j) for j in range(len(words) + 1)]
    for i, gone in enumerate(old):
        previous, row = row, [i + 1.0]
        for j, word in enumerate(words):
            change = (normalised(word.text) != gone) + _shift(completed[i], word, rate_hz)
            row.append(min(previous[j] + change, previous[j + 1] + 1.0, row[j] + 1.0))
    costs = [cost + _misplacement(completed[-1], words, j, rate_hz) for j, cost in enumerate(row)]
    return min(range(len(costs)), key=costs.__getitem__)


def _has_time(word: TimedWord, rate_hz: int) -> bool:
    return word.end - word.start >= MIN_WORD_S * rate_hz


def _middle(word: TimedWord) -> float:
    return (word.start + word.end) / 2


def _shift(before: TimedWord, now: TimedWord, rate_hz: int) -> float:
    """What the distance in time between two readings of a word costs."""
    is_timed = _has_time(before, rate_hz) and _has_time(now, rate_hz)
    return min(MAX_SHIFT if is_timed else MAX_TIMELESS_SHIFT, abs(_middle(now) - _middle(before)) / rate_hz)


def _misplacement(last: TimedWord, words: Sequence[TimedWord], j: int, rate_hz: int) -> float:
    """What it costs that a cut before `words[j]` contradicts the end of the completed audio."""
    late = max(0.0, _middle(words[j - 1]) - last.end) if j > 0 else 0.0
    early = max(0.0, last.end - _middle(words[j])) if j < len(words) else 0.0
    beside = [*words[max(0, j - 1) : j + 1], last]
    is_timed = all(_has_time(word, rate_hz) for word in beside)
    cost = (late + early) / rate_hz
    return cost if is_timed else min(1.0, cost)


def stable_prefix(
    previous: Sequence[TimedWord], current: Sequence[TimedWord], end: int, edge: int, rate_hz: int
) -> int:
    """How many words at the beginning of `current`, a hypothesis for audio up to sample `end`, will stay.

    Words that both hypotheses have up to sample `edge`, and behind them those of which the model is sure
    and that the hypothesis before does not contradict; never the last word.
    """
    count = agreed_prefix(previous, current, edge, rate_hz)
    limit = end - SURE_MARGIN_S * rate_hz
    for word in current[count:-1]:
        if count < len(previous) and normalised(previous[count].text) != normalised(word.text):
            break
        if word.probability < SURE_PROBABILITY or word.end > limit or not _has_time(word, rate_hz):
            break
        count += 1
    return count


def agreed_prefix(previous: Sequence[TimedWord], current: Sequence[TimedWord], edge: int, rate_hz: int) -> int:
    """How many words at the beginning of `current` the previous hypothesis had too, at the same time.

    Words that end after `edge` (a sample) do not count, nor does the very last word of `current`, nor
    several words without time: that is where a model begins to repeat itself.
    """
    count = 0
    for before, now in zip(previous, current[:-1], strict=False):
        if normalised(before.text) != normalised(now.text) or now.end > edge:
            break
        if abs(_middle(before) - _middle(now)) > AGREED_SHIFT_S * rate_hz:
            break
        crowd = current[count : count + CROWD_WORDS]
        if len(crowd) == CROWD_WORDS and not any(_has_time(word, rate_hz) for word in crowd):
            break
        count += 1
    return count
