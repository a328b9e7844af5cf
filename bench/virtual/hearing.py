"""What a speech model would hear in a window of a made-up talk: its words, with a model's failings at the edges.

A window is found in the talk by its mel frames. Its words are right, except, as assumed here:

- a word that the window's beginning cuts is heard if LEFT_SHARE of it is there, else skipped;
- a word that its end cuts is skipped below CLICK_SHARE, and below RIGHT_SHARE heard as another word;
- the last word, if it ends within EDGE_S of the end, is another word in EDGE_ERRORS of the cases;
- every word of a partial is another word in SLIPS of the cases, independently in each window;
- the last word of a partial has a full stop too much, or lacks its own, in half of the cases if less than PAUSE_S
  follow it, and in LATE_STOPS of the cases if more do;
- word times are off by up to JITTER_S.

Words heard wrong have low probabilities. All of it depends on the seed and the window alone: who else is in
the batch, and how often it is decoded, changes nothing. No text is hallucinated and nothing loops.

Pure; knows no model and no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.virtual.talk import SaidWord, Talk, frame_key, heard_wrong
from engine.types import FRAMES_PER_SECOND, DetectResult, JobClass, WindowJob, WindowResult, Word

__all__ = ["Hearing"]

LEFT_SHARE = 0.6
CLICK_SHARE = 0.3
RIGHT_SHARE = 0.85
EDGE_S = 0.15
EDGE_ERRORS = 0.15
SLIPS = 0.01
PAUSE_S = 0.2
EARLY_STOPS, LATE_STOPS = 0.5, 0.1
JITTER_S = 0.04
SURE, UNSURE = 0.95, 0.45
"""Probabilities of words heard right and wrong."""
SEARCHED_FRAMES = 8
"""The first two frames of a stream and the last two of any are like no other; one in so many is."""
ENGLISH: DetectResult = (("en", 0.98), ("es", 0.02))


class Hearing:
    """Hears the windows of several talks, each known by its name."""

    def __init__(self, talks: Sequence[Talk], n_mels: int, seed: int = 0) -> None:
        self._seed = seed
        self._talks = talks
        self._places = {
            key: (which, place) for which, talk in enumerate(talks) for key, place in talk.places(n_mels).items()
        }

    def hear(self, job: WindowJob) -> WindowResult:
        """The words of a window. Raises ValueError if no talk has it: somebody has damaged the audio."""
        n_frames = job.mel.shape[1]
        which, first = self._find(job)
        end = first + n_frames
        words = self._words(which, first, end, is_final=job.job_class is JobClass.FINAL)
        probabilities = ENGLISH if job.language is None else ()
        logprob, no_speech = (-0.2, 0.01) if words else (-1.5, 0.95)
        return WindowResult(words, job.language or ENGLISH[0][0], probabilities, logprob, no_speech, 1.0)

    def _find(self, job: WindowJob) -> tuple[int, int]:
        for index in range(min(SEARCHED_FRAMES, job.mel.shape[1])):
            found = self._places.get(frame_key(job.mel, index))
            if found is not None:
                which, place = found
                return which, place - index
        raise ValueError(f"a window of {job.mel.shape[1]} frames is in no talk")

    def _words(self, which: int, first: int, end: int, *, is_final: bool) -> tuple[Word, ...]:
        start_s, end_s = first / FRAMES_PER_SECOND, end / FRAMES_PER_SECOND
        heard: list[Word] = []
        for said, offset_s in _in_window(self._talks[which], start_s, end_s):
            word = self._word(said, offset_s - start_s, end_s - start_s, (which, first, end), is_final=is_final)
            if word is not None:
                heard.append(word)
        if heard and not is_final:
            is_early = heard[-1].end_s > end_s - start_s - PAUSE_S
            if self._chance(which, end, -1) < (EARLY_STOPS if is_early else LATE_STOPS):
                heard[-1] = _other_stop(heard[-1])
        return tuple(heard)

    def _word(
        self, said: SaidWord, offset_s: float, window_s: float, window: tuple[int, ...], *, is_final: bool
    ) -> Word | None:
        start_s, end_s = said.start_s + offset_s, said.end_s + offset_s
        share = (min(end_s, window_s) - max(start_s, 0.0)) / (end_s - start_s)
        is_cut_left, is_cut_right = start_s < 0, end_s > window_s
        if (is_cut_left and share < LEFT_SHARE) or (is_cut_right and share < CLICK_SHARE):
            return None
        chance = self._chance(*window, said.number)
        is_wrong = is_cut_right and share < RIGHT_SHARE
        is_wrong |= not is_cut_right and end_s > window_s - EDGE_S and chance < EDGE_ERRORS
        is_wrong |= not is_final and chance < SLIPS
        shift_s = JITTER_S * (2 * self._chance(*window, said.number, 1) - 1)
        start_s = min(window_s, max(0.0, start_s + shift_s))
        end_s = min(window_s, max(start_s, end_s + shift_s))
        text = heard_wrong(said) if is_wrong else said.text
        tokens = (said.number,) * said.n_tokens
        return Word(text, start_s, end_s, UNSURE if is_wrong else SURE, tokens)

    def _chance(self, *what: int) -> float:
        """Between 0 and 1, evenly, always the same for the same arguments."""
        return hash((self._seed, *what)) % 1_000_003 / 1_000_003


def _in_window(talk: Talk, start_s: float, end_s: float) -> list[tuple[SaidWord, float]]:
    """The words that overlap a window that may reach over the talk's ends, each with its round's offset."""
    found = []
    for turn in range(int(start_s // talk.duration_s), int(end_s // talk.duration_s) + 1):
        offset_s = turn * talk.duration_s
        found += [
            (word, offset_s)
            for word in talk.words
            if word.end_s + offset_s > start_s and word.start_s + offset_s < end_s
        ]
    return found


def _other_stop(word: Word) -> Word:
    text = word.text.removesuffix(".") if word.text.endswith(".") else word.text + "."
    return Word(text, word.start_s, word.end_s, word.probability, word.tokens)
