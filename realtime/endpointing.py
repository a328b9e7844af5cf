"""From speech probabilities to windows of audio worth decoding (endpointing).

A window opens at the first frame that is speech, some padding earlier, and closes when silence
has lasted long enough, some padding later; less silence is enough where the text is known to end a sentence.
But for that, everything is a function of the frames alone, so any chunking and any pacing of the same audio
gives the same windows.

Gated (`use_vad`): audio between windows is judged silent and need not be decoded. Not gated:
windows touch each other, so that every sample is decoded and the detector only chooses where to cut.

Knows nothing of words, sockets or time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from engine.types import SAMPLE_RATE_HZ
from engine.vad import VAD_FRAME_SAMPLES

__all__ = ["EndpointOptions", "Endpointer", "Window"]

UNGATED_SILENCE_SAMPLES = 8 * SAMPLE_RATE_HZ
"""Without gating, a stretch in which no speech was found is decoded once it is this long: before it fills
the default backlog of 10 s, which would cost a decode of its own."""


@dataclass(frozen=True)
class EndpointOptions:
    """Thresholds in probability, durations in milliseconds (names as in faster-whisper's VadOptions).

    After a finished sentence a silence of `sentence_silence_ms` is enough, if `min_silence_ms` is more.
    """

    threshold: float = 0.4
    neg_threshold: float = 0.25
    min_silence_ms: int = 600
    sentence_silence_ms: int = 300
    speech_pad_ms: int = 400
    gated: bool = True


@dataclass
class Window:
    """A stretch to decode: [start, end), end None while it is open; all in samples.

    `last_speech` is the end of the last frame so far that was speech (0: none), `speech` how many samples
    were. `is_cut` tells that it ends for want of audio and not in silence: a word may go on in the next one.
    """

    start: int
    end: int | None = None
    last_speech: int = 0
    speech: int = 0
    is_cut: bool = False

    def hear(self, frame_end: int) -> None:
        """The frame that ends at sample `frame_end` was speech."""
        self.last_speech = frame_end
        self.speech += VAD_FRAME_SAMPLES


class Endpointer:
    """Consumes one probability per frame of 512 samples; keeps the windows not yet taken."""

    def __init__(self, options: EndpointOptions) -> None:
        self._options = options
        self._pad = options.speech_pad_ms * SAMPLE_RATE_HZ // 1000
        self._min_silence = options.min_silence_ms * SAMPLE_RATE_HZ // 1000
        self._sentence_silence = min(self._min_silence, options.sentence_silence_ms * SAMPLE_RATE_HZ // 1000)
        self._sentence_at: int | None = None
        self._frame_end = 0
        self._in_speech = False
        self._silence_start: int | None = None
        self._last_end = 0
        self.windows: deque[Window] = deque()
        if not options.gated:
            self._open(0)

    @property
    def silent_until(self) -> int:
        """Samples before this one are in no window and never will be."""
        if self.windows:
            return self.windows[0].start
        return max(self._last_end, self._frame_end - self._pad)

    def push(self, probability: float) -> None:
        """Take the next frame's probability of speech."""
        start = self._frame_end
        self._frame_end += VAD_FRAME_SAMPLES
        if self._in_speech:
            self._continue(probability, start)
        elif probability >= self._options.threshold:
            self._begin(start)
        elif not self._options.gated:
            # The detector may be late: speech may have begun within the padding.
            end = self._frame_end - self._pad
            if end - self.windows[-1].start >= UNGATED_SILENCE_SAMPLES:
                self._close(end)

    def sentence_ends(self, last_speech: int) -> None:
        """The speech up to sample `last_speech` is a finished sentence: less silence need follow it.

        Void as soon as there is speech behind it.
        """
        self._sentence_at = last_speech

    def finish(self, end: int) -> None:
        """Close whatever is open at sample `end`, the end of the audio received.

        More audio may follow: it begins a new window.
        """
        self._in_speech = False
        self._silence_start = None
        if self.windows and self.windows[-1].end is None and self.windows[-1].start < end:
            self.windows[-1].is_cut = True
            self._close(end)

    def _begin(self, start: int) -> None:
        self._in_speech = True
        self._silence_start = None
        if self._options.gated:
            self._open(max(self._last_end, start - self._pad))
        self.windows[-1].hear(self._frame_end)

    def _continue(self, probability: float, start: int) -> None:
        window = self.windows[-1]
        if probability >= self._options.threshold:
            self._silence_start = None
            window.hear(self._frame_end)
            return
        if self._silence_start is None:
            if probability >= self._options.neg_threshold:
                window.hear(self._frame_end)
                return
            self._silence_start = start
        enough = self._sentence_silence if window.last_speech == self._sentence_at else self._min_silence
        if self._frame_end - self._silence_start >= enough:
            self._in_speech = False
            self._close(min(self._silence_start + self._pad, self._frame_end))

    def _open(self, start: int) -> None:
        self.windows.append(Window(start))

    def _close(self, end: int) -> None:
        self.windows[-1].end = end
        self._last_end = end
        if not self._options.gated:
            self._open(end)
