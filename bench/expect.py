"""What the model makes of a playlist offline, judged word by word: the yardstick of live text.

Pure. Invariant: errors are counted at words of the labels, so that any stretch of a recording has its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.playlist import Playlist
from engine.wer import align, normalise
from realtime.client.latency import Recording

__all__ = ["Expected", "OfflineWords", "expected", "judge"]


@dataclass(frozen=True)
class OfflineWords:
    """For each word of a recording: did the model hear anything in its place offline, and how many errors stand at it?

    What it heard need not be right. An error is a word that is wrong or missing, or a word too many behind it.
    """

    heard: tuple[bool, ...]
    errors: tuple[int, ...]


@dataclass(frozen=True)
class Expected:
    """What offline decoding would make of a playlist: which words it hears, and how many errors it makes in all."""

    heard: tuple[bool, ...]
    errors: int


def judge(recording: Recording, text: str) -> OfflineWords:
    """Compare an offline transcript with the labels."""
    heard = [False] * len(recording.words)
    errors = [0] * len(recording.words)
    place = 0
    for pair in align([word.text for word in recording.words], normalise(text)):
        place = place if pair.reference is None else pair.reference
        if pair.reference is not None and pair.hypothesis is not None:
            heard[place] = True
        if errors and not pair.is_match:
            errors[place] += 1
    return OfflineWords(tuple(heard), tuple(errors))


def expected(playlist: Playlist, offline: Mapping[str, OfflineWords]) -> Expected | None:
    """What to expect of a playlist; None if a recording has no offline transcript."""
    if any(stem not in offline for stem, _ in playlist.sources):
        return None
    heard = tuple(offline[stem].heard[place] for stem, place in playlist.sources)
    return Expected(heard, sum(offline[stem].errors[place] for stem, place in playlist.sources))
