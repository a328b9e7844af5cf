"""Which stretches of a recording are speech, told while the recording is still being read.

The rules are those of faster-whisper's `get_speech_timestamps` (`engine.recording_types.VadOptions`), which
looks at all probabilities at once; here each one is looked at when it comes, and what can no longer change
is handed out. Knows probabilities and sample numbers, no audio. Invariants: stretches ascend and do not
overlap; no more than MAX_HELD_S is undecided while somebody talks.
"""

from __future__ import annotations

import math

from engine.recording_types import VadOptions
from engine.types import SAMPLE_RATE_HZ
from engine.vad import VAD_FRAME_SAMPLES

__all__ = ["MAX_HELD_S", "SpeechSpans"]

Span = tuple[int, int]

MAX_HELD_S = 60.0
"""With `max_speech_duration_s` a stretch may end at its last pause after all, so what follows the pause is
undecided. Longer than this nobody waits: the memory for it is bounded, and the cut is somewhere else then."""
SPLIT_PAUSE_SAMPLES = 98 * SAMPLE_RATE_HZ // 1000
"""A pause must be longer than this to end a stretch that has got too long."""
NEG_MARGIN = 0.15
LEAST_NEG_THRESHOLD = 0.01


def _samples(milliseconds: float) -> float:
    return SAMPLE_RATE_HZ * milliseconds / 1000


class SpeechSpans:
    """Probabilities of frames of 512 samples in, stretches of speech out, with padding."""

    def __init__(self, options: VadOptions) -> None:
        self._threshold = options.threshold
        self._neg_threshold = options.neg_threshold
        if self._neg_threshold is None:
            self._neg_threshold = max(options.threshold - NEG_MARGIN, LEAST_NEG_THRESHOLD)
        self._pad = int(_samples(options.speech_pad_ms))
        self._min_speech = _samples(options.min_speech_duration_ms)
        self._min_silence = _samples(options.min_silence_duration_ms)
        self._max_speech = _samples(1000 * options.max_speech_duration_s) - VAD_FRAME_SAMPLES - 2 * self._pad
        self._now = 0
        self._open: int | None = None
        self._quiet_from: int | None = None
        self._pause_at: int | None = None
        self._resumed_at: int | None = None
        # What is known to stay, on its way out.
        self._head: int | None = None
        self._cursor = 0
        self._tail: int | None = None
        self._settled: list[Span] = []

    @property
    def needed_from(self) -> int:
        """Audio before this sample is in no stretch that is still to come."""
        needed = [self._now - self._pad]
        if self._tail is not None:
            needed.append(self._tail)
        if self._open is not None:
            needed.append(self._cursor if self._head == self._open else self._open - self._pad)
        return max(0, min(needed))

    def push(self, probability: float) -> None:
        """Take the next frame's probability of speech."""
        at, self._now = self._now, self._now + VAD_FRAME_SAMPLES
        if probability >= self._threshold:
            self._speech(at)
        self._too_long(at)
        assert self._neg_threshold is not None
        if probability < self._neg_threshold and self._open is not None:
            self._quiet(at)
        self._reveal_open()

    def finish(self, n_samples: int) -> None:
        """The recording has `n_samples`, of which the last frame may have been filled up; what is open ends there."""
        if self._open is not None and n_samples - self._open > self._min_speech:
            self._reveal(self._open, n_samples)
            self._close(n_samples)
        if self._tail is not None:
            self._emit(self._tail, min(n_samples, self._tail + self._pad))
            self._tail = None

    def take(self) -> list[Span]:
        """(first sample, sample after the last) of all that has been decided since the last call.

        A stretch may come in several parts; they touch.
        """
        settled, self._settled = self._settled, []
        return settled

    def _speech(self, at: int) -> None:
        if self._quiet_from is not None:
            self._quiet_from = None
            if self._pause_at is not None and self._resumed_at is None:
                self._resumed_at = at
        if self._open is None:
            self._open = at

    def _too_long(self, at: int) -> None:
        if self._open is None or at - self._open <= self._max_speech or at == self._open:
            return
        pause_at, resumed_at = self._pause_at, self._resumed_at
        end = at if pause_at is None else pause_at
        self._reveal(self._open, end)
        self._close(end)
        # Without a pause speech goes on with the next frame that is speech.
        self._open = resumed_at

    def _quiet(self, at: int) -> None:
        if self._quiet_from is None:
            self._quiet_from = at
        quiet = at - self._quiet_from
        if quiet > SPLIT_PAUSE_SAMPLES and self._pause_at != self._quiet_from:
            self._pause_at, self._resumed_at = self._quiet_from, None
        if quiet >= self._min_silence:
            assert self._open is not None
            end = self._quiet_from
            if end - self._open > self._min_speech:
                self._reveal(self._open, end)
                self._close(end)
            self._forget_open()

    def _close(self, end: int) -> None:
        self._tail = max(end, self._cursor)
        self._head = None
        self._forget_open()

    def _forget_open(self) -> None:
        self._open = self._quiet_from = self._pause_at = self._resumed_at = None

    def _reveal_open(self) -> None:
        """Hand out what cannot change any more."""
        if self._open is not None:
            until = self._now if self._quiet_from is None else self._quiet_from
            if self._pause_at is not None and math.isfinite(self._max_speech):
                until = max(self._pause_at, self._now - int(MAX_HELD_S * SAMPLE_RATE_HZ))
            if until - self._open > self._min_speech:
                self._reveal(self._open, until)
        nearest = self._now if self._open is None else self._open
        if self._tail is not None and nearest >= self._tail + 2 * self._pad:
            self._emit(self._tail, self._tail + self._pad)
            self._tail = None

    def _reveal(self, start: int, until: int) -> None:
        """The stretch that begins at `start` stays, at least up to `until`."""
        if self._head != start:
            lead = min(start, self._pad)
            if self._tail is not None:
                # Two stretches share the silence between them.
                lead = max(0, min((start - self._tail) // 2, self._pad))
                self._emit(self._tail, self._tail + lead)
                self._tail = None
            self._head = start
            self._cursor = max(self._cursor, start - lead)
        if until > self._cursor:
            self._emit(self._cursor, until)

    def _emit(self, start: int, end: int) -> None:
        if end > start:
            self._settled.append((start, end))
        self._cursor = max(self._cursor, end)
