"""How much the text dances: what was shown and then changed or taken back.

Pure: a list of updates in, counts out. What is *visible* after a message is all completed text and the
provisional text behind it. Two views of the words: raw as they stand on the screen, and normalised (case
and punctuation ignored). Definitions, with sums over all pairs of successive messages:

* Unstable partial word ratio (UPWR; after Shangguan et al. 2020, arXiv 2006.01416: unstable words of the
  partials per word of the final text): words of the earlier message that the cheapest word alignment with
  the later one does not find again, i.e. that it replaced or took back, per word of the last visible
  text. A word that flickers twice counts twice. A word that only moves because another was put
  before it does not count.
* Normalised erasure (NE; Arivazhagan et al. 2020, arXiv 2004.03643): words of the earlier message behind
  the longest common beginning with the later one, per word of the last visible text. There, a
  word put before others erases all of them; so NE is never below UPWR.
* Largest shrink: by how many words the provisional text got shorter at most from one message to the next
  when that one completed nothing.

The last visible text is what stands there at the end, completed or not. Invariant: completed text
that a server changes later is not seen here; it counts as `mutated` in `bench.collect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.wer import align, normalise
from realtime.client.messages import Segment, Update

__all__ = ["Churn", "Stability", "stability"]


@dataclass(frozen=True)
class Churn:
    """Counts of words in one view of the text; ratios are per word of the last visible text."""

    unstable: int = 0
    erased: int = 0
    words: int = 0

    @property
    def upwr(self) -> float:
        """Unstable partial word ratio."""
        return self.unstable / max(1, self.words)

    @property
    def erasure(self) -> float:
        """Normalised erasure."""
        return self.erased / max(1, self.words)

    def __add__(self, other: Churn) -> Churn:
        """The counts of two streams together."""
        return Churn(self.unstable + other.unstable, self.erased + other.erased, self.words + other.words)


@dataclass(frozen=True)
class Stability:
    """The churn of a stream in both views, and its largest shrink in words."""

    raw: Churn = Churn()
    normalised: Churn = Churn()
    largest_shrink_words: int = 0

    def __add__(self, other: Stability) -> Stability:
        """Two streams together."""
        return Stability(
            self.raw + other.raw,
            self.normalised + other.normalised,
            max(self.largest_shrink_words, other.largest_shrink_words),
        )


def stability(updates: Sequence[Update]) -> Stability:
    """Count the churn of one stream."""
    shrink, before = 0, 0
    for update in updates:
        now = len(_raw(update.provisional))
        if not update.completed:
            shrink = max(shrink, before - now)
        before = now
    return Stability(_churn(updates, normalised=False), _churn(updates, normalised=True), shrink)


def _churn(updates: Sequence[Update], *, normalised: bool) -> Churn:
    words_of = _plain if normalised else _raw
    unstable = erased = completed = 0
    before: tuple[str, ...] = ()
    for update in updates:
        new = tuple(word for segment in update.completed for word in words_of(segment))
        provisional = words_of(update.provisional)
        gone, cut = _lost(before, new + provisional)
        unstable += gone
        erased += cut
        completed += len(new)
        before = provisional
    return Churn(unstable, erased, completed + len(before))


def _lost(before: Sequence[str], after: Sequence[str]) -> tuple[int, int]:
    """Words of `before` that `after` has not, and words of `before` behind the common beginning."""
    same = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        same += 1
    rest = before[same:]
    if not rest:
        return 0, 0
    kept = sum(pair.is_match for pair in align(rest, after[same:]))
    return len(rest) - kept, len(rest)


def _raw(segment: Segment | None) -> tuple[str, ...]:
    return tuple(segment.text.split()) if segment else ()


def _plain(segment: Segment | None) -> tuple[str, ...]:
    return normalise(segment.text) if segment else ()
