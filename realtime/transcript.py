"""The text of one stream: completed segments, which never change, and one provisional one.

Fed with the words of each decode, in order; answers with what is new. Also decides where the next
decode has to begin: after completed words, but with a few of them left in as a running start,
which are recognised and skipped when they come again.

Invariants: completed segments are append-only, in order, and do not overlap, to the millisecond; a
provisional segment keeps the start that its completion will have.

Pure: knows words and samples; no audio, no messages, no clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from engine.sentences import ends_sentence
from engine.types import SAMPLE_RATE_HZ
from realtime.display import MAX_SHRINK_WORDS, shown_words, shrinks_too_much
from realtime.messages import Segment, SegmentWord
from realtime.stability import TimedWord, before_loop, skip_completed, stable_prefix

__all__ = ["Transcript", "Update"]

EDGE_SAMPLES = int(0.3 * SAMPLE_RATE_HZ)
"""A word that ends closer to the end of the audio than this may be half heard."""
COMPLETE_AFTER_SAMPLES = SAMPLE_RATE_HZ
"""Stable words are completed at a sentence end, or once the audio is this far ahead of the first: pieces of
about three words. Measured on the demo model's recordings: half of the words are completed within 0.9 s
(2.25 s here: 1.5 s), no more of them are wrong; at 0.7 s 1 % are."""
CONTEXT_WORDS = 128
"""Completed words remembered as context for the next windows: more tokens than any prompt takes."""
CONTEXT_GAP_SAMPLES = 5 * SAMPLE_RATE_HZ
"""After a silence of this length what was said before tells little of what comes."""
RUNNING_START_SAMPLES = 4 * SAMPLE_RATE_HZ
"""Completed audio that is decoded again, so that the next words are not heard out of the blue."""
CLEAN_CUT_SAMPLES = int(0.1 * SAMPLE_RATE_HZ)
"""After a sentence and a pause of this length no running start is needed."""
MAX_SEGMENT_SAMPLES = 10 * SAMPLE_RATE_HZ
"""Longer captions are split at a word: nobody reads a paragraph as one line."""
MIN_PROGRESS_SAMPLES = RUNNING_START_SAMPLES + SAMPLE_RATE_HZ
"""A forced cut that gains less than this completes everything instead, so that it always gets on."""
SPLIT_GAP_SAMPLES = SAMPLE_RATE_HZ
"""A pause of this length starts a new segment."""


@dataclass(frozen=True)
class Update:
    """What a decode changed: newly completed segments, and the provisional one (None: no change)."""

    completed: tuple[Segment, ...]
    provisional: Segment | None


class Transcript:
    """Words in, segments out; see the module's docstring."""

    def __init__(self, *, word_timestamps: bool = False) -> None:
        self._word_timestamps = word_timestamps
        self._running_start: list[TimedWord] = []
        self._joined_at: int | None = None
        self._hypothesis: list[TimedWord] = []
        self._shown: Sequence[TimedWord] = ()
        self._said: deque[TimedWord] = deque(maxlen=CONTEXT_WORDS)
        self._open_start_ms: int | None = None
        self._last_end_ms = 0
        self.n_completed = 0
        self.decode_from = 0
        """The sample at which the next window has to begin."""

    @property
    def at_sentence_end(self) -> bool:
        """True if the last word heard closes a sentence."""
        heard = self._hypothesis or self._running_start
        return bool(heard) and ends_sentence(heard[-1].text)

    @property
    def context(self) -> list[int]:
        """Token ids of the completed text before the next window's beginning, oldest first."""
        return [token for word in self._said if word.end <= self.decode_from for token in word.tokens]

    def forget_context(self) -> None:
        """What was said is no help to what comes: the model repeats it, or the language is another."""
        self._said.clear()

    def begin_window(self, start: int) -> None:
        """A new stretch of speech begins at sample `start`."""
        if self._said and start - self._said[-1].end >= CONTEXT_GAP_SAMPLES:
            self.forget_context()
        if self._joined_at is None:
            self.decode_from = max(self.decode_from, start)

    def silence(self, until: int) -> None:
        """Nothing was said before sample `until`: a running start that ends well before it is useless."""
        if self._joined_at is None or until - self._joined_at >= SPLIT_GAP_SAMPLES:
            self._begin_anew(max(self.decode_from, until))

    def partial(self, words: Sequence[TimedWord], end: int) -> Update:
        """Take a hypothesis for the audio up to sample `end`, which goes on."""
        fresh, previous = self._fresh(words), self._hypothesis
        if shrinks_too_much(self._shown, fresh):
            self._hypothesis = fresh
            self._shown = self._shown[:-MAX_SHRINK_WORDS]
            return Update((), self._provisional())
        n_stable = stable_prefix(previous, fresh, end, end - EDGE_SAMPLES, SAMPLE_RATE_HZ)
        cut = _completion(fresh[:n_stable], end)
        completed = self._complete(fresh[:cut])
        self._hypothesis = fresh[cut:]
        self._shown = shown_words(self._hypothesis, previous[cut:], len(self._shown) - cut, end)
        if cut:
            self._leave_behind(fresh[:cut], fresh[cut : cut + 1])
        return Update(completed, self._provisional())

    def final(self, words: Sequence[TimedWord], end: int, *, goes_on: bool = False) -> Update:
        """Take the last decode of a window: all its words are completed.

        With `goes_on` the window was cut off at sample `end`, perhaps in mid-word: a running start
        remains, and audio from after the last word in any case.
        """
        fresh = self._fresh(words)
        completed = self._complete(fresh)
        self._hypothesis, self._shown = [], ()
        self._open_start_ms = None
        if goes_on:
            self._join([*self._running_start, *fresh], end)
        else:
            self._begin_anew(end)
        return Update(completed, None)

    def forced(self, words: Sequence[TimedWord], hold_back_after: int, end: int) -> Update:
        """Take the decode of a window that is too long: words up to `hold_back_after` are completed.

        If nothing was said, the audio up to there is done with.
        """
        fresh = self._fresh(words)
        n_sure = sum(1 for word in fresh if word.end <= hold_back_after)
        following = fresh[n_sure].start if n_sure < len(fresh) else hold_back_after
        reached = fresh[n_sure - 1].end if n_sure else self.decode_from
        if following - reached < SPLIT_GAP_SAMPLES and reached - self.decode_from < MIN_PROGRESS_SAMPLES:
            n_sure, following = len(fresh), end
        completed = self._complete(fresh[:n_sure])
        self._hypothesis = fresh[n_sure:]
        is_held = not completed and shrinks_too_much(self._shown, fresh)
        self._shown = self._shown[:-MAX_SHRINK_WORDS] if is_held else self._hypothesis
        if completed and following - fresh[n_sure - 1].end < SPLIT_GAP_SAMPLES:
            self._leave_behind(fresh[:n_sure], self._hypothesis[:1])
        else:
            self._begin_anew(max(reached, following - CLEAN_CUT_SAMPLES) if self._hypothesis else following)
        return Update(completed, self._provisional())

    def pass_over(self) -> Update:
        """The window ends before `decode_from`: a forced decode has heard all of it already."""
        heard_until = max([self.decode_from, *(word.end for word in self._hypothesis[-1:])])
        update = self.give_up()
        self.final([], heard_until)
        return update

    def give_up(self) -> Update:
        """No further decode will come: complete the words last heard, or last shown if those are more."""
        completed = self._complete(max(self._hypothesis, self._shown, key=len))
        self._hypothesis, self._shown = [], ()
        return Update(completed, None)

    def _fresh(self, words: Sequence[TimedWord]) -> list[TimedWord]:
        """The words of a decode that are new and can be real."""
        real = before_loop(words, SAMPLE_RATE_HZ)
        return list(real[skip_completed(self._running_start, real, SAMPLE_RATE_HZ) :])

    def _leave_behind(self, done: Sequence[TimedWord], following: Sequence[TimedWord]) -> None:
        """Move the next window's beginning behind `done`, less a running start."""
        boundary = done[-1].end
        pause = following[0].start - boundary if following else 0
        if ends_sentence(done[-1].text) and pause >= CLEAN_CUT_SAMPLES:
            self._begin_anew(boundary + pause // 2)
        else:
            self._join([*self._running_start, *done], boundary)

    def _join(self, known: Sequence[TimedWord], at: int) -> None:
        """The next window begins before sample `at`, at the first of the `known` words that are near it."""
        near = [word for word in known if word.start >= at - RUNNING_START_SAMPLES]
        if not near and known and at - known[-1].end < SPLIT_GAP_SAMPLES:
            near = [known[-1]]
        start = near[0].start if near else max([at - RUNNING_START_SAMPLES, *(word.end for word in known[-1:])])
        self._running_start = near
        self._joined_at = at
        self.decode_from = max(self.decode_from, start)

    def _begin_anew(self, start: int) -> None:
        """The next window begins at sample `start`, and all that is heard in it is new."""
        self._running_start = []
        self._joined_at = None
        self.decode_from = start

    def _complete(self, words: Sequence[TimedWord]) -> tuple[Segment, ...]:
        segments = []
        for group in _segments(words):
            start_ms = _ms(group[0].start) if self._open_start_ms is None else self._open_start_ms
            segments.append(self._segment(group, start_ms, completed=True))
            self._last_end_ms = segments[-1].end_ms
            self._open_start_ms = None
        self._said.extend(words)
        self.n_completed += len(segments)
        return tuple(segments)

    def _provisional(self) -> Segment | None:
        if not self._shown:
            return None
        if self._open_start_ms is None:
            self._open_start_ms = max(self._last_end_ms, _ms(self._shown[0].start))
        return self._segment(self._shown, self._open_start_ms, completed=False)

    def _segment(self, words: Sequence[TimedWord], start_ms: int, *, completed: bool) -> Segment:
        start_ms = max(self._last_end_ms, start_ms)
        end_ms = max(start_ms, _ms(words[-1].end))
        timed: tuple[SegmentWord, ...] = ()
        if self._word_timestamps:
            timed = tuple(
                SegmentWord(w.text, max(start_ms, _ms(w.start)), max(start_ms, _ms(w.end)), w.probability)
                for w in words
            )
        return Segment(start_ms, end_ms, "".join(word.text for word in words), completed, timed)


def _ms(sample: int) -> int:
    return sample * 1000 // SAMPLE_RATE_HZ


def _completion(stable: Sequence[TimedWord], end: int) -> int:
    """How many of the stable words to complete now."""
    for count in range(len(stable), 0, -1):
        if ends_sentence(stable[count - 1].text):
            return count
    if stable and end - stable[0].end >= COMPLETE_AFTER_SAMPLES:
        return len(stable)
    return 0


def _segments(words: Sequence[TimedWord]) -> list[list[TimedWord]]:
    """Split words into captions: at sentence ends, long pauses, and a length nobody reads."""
    groups: list[list[TimedWord]] = []
    for word in words:
        last = groups[-1] if groups else None
        if (
            last is None
            or ends_sentence(last[-1].text)
            or word.start - last[-1].end >= SPLIT_GAP_SAMPLES
            or word.end - last[0].start > MAX_SEGMENT_SAMPLES
        ):
            groups.append([word])
        else:
            last.append(word)
    return groups
