"""Which words of a hypothesis are shown while they may still change, so that the text does not dance.

A word that ends at the edge of the audio is half heard as often as not: a new one is shown only once it
keeps clear of the edge or was heard twice. The mark behind the last word is a guess about what was not said
yet: it is shown once it was heard twice. And text that is already shown never shrinks by more than
MAX_SHRINK_WORDS at once; what is heard after the end of an utterance overrides all of this.

Pure: knows words and samples; no audio, no messages, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.types import SAMPLE_RATE_HZ
from realtime.stability import TimedWord, normalised

__all__ = ["MAX_SHRINK_WORDS", "shown_words", "shrinks_too_much"]

MAX_SHRINK_WORDS = 2
"""One word taken back is a correction, two are two words heard as one; more is a model that lost its place."""
FRESH_EDGE_SAMPLES = int(0.1 * SAMPLE_RATE_HZ)
"""A word that ends this close to the edge of the audio has to be heard twice before it is shown."""
MARKS = ".,;:!?…。，、！？"


def shrinks_too_much(shown: Sequence[TimedWord], fresh: Sequence[TimedWord]) -> bool:
    """True if showing `fresh` instead of `shown` would take back more than MAX_SHRINK_WORDS."""
    return len(fresh) < len(shown) - MAX_SHRINK_WORDS


def shown_words(
    fresh: Sequence[TimedWord], previous: Sequence[TimedWord], n_shown: int, end: int
) -> tuple[TimedWord, ...]:
    """The words of `fresh`, a hypothesis for the audio up to sample `end`, that are shown.

    `previous` is the hypothesis before it, from the same word on; the first `n_shown` places are on the
    screen already, whatever stands there.
    """
    count = 0
    for place, word in enumerate(fresh):
        if place < n_shown or word.end <= end - FRESH_EDGE_SAMPLES or _heard_before(word, previous, place):
            count = place + 1
        else:
            break
    if count == 0:
        return ()
    last = fresh[count - 1]
    if _exactly_before(last, previous, count - 1):
        return tuple(fresh[:count])
    return (*fresh[: count - 1], replace(last, text=last.text.rstrip(MARKS) or last.text))


def _heard_before(word: TimedWord, previous: Sequence[TimedWord], place: int) -> bool:
    return place < len(previous) and normalised(previous[place].text) == normalised(word.text)


def _exactly_before(word: TimedWord, previous: Sequence[TimedWord], place: int) -> bool:
    return place < len(previous) and previous[place].text == word.text
