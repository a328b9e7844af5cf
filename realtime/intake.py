"""The audio side of a session: from raw bytes to windows of speech, with every sample accounted for.

Raw bytes wait in an inbox and are taken in as far as the backlog allows: decoded, analysed for
speech and turned into log-mel frames. Windows worth decoding come out of the endpointer.

Knows nothing of words, jobs, messages or time.
"""

from __future__ import annotations

from collections import deque

from engine.types import SAMPLE_RATE_HZ, FloatArray
from engine.vad import SpeechDetector
from realtime.audioformat import FORMATS
from realtime.buffer import AudioBuffer
from realtime.endpointing import Endpointer, EndpointOptions, Window
from realtime.frames import FrameDecoder
from realtime.ledger import Ledger
from realtime.protocol import Handshake

__all__ = ["Intake"]

INGEST_S = 0.25
"""Raw audio is taken in pieces of this length, so that one message cannot overfill the backlog."""
MIN_SILENCE_MS = 200
"""Shorter pauses stand inside words (plosives), where a cut would lose some."""


class Intake:
    """Bytes in, windows and log-mel frames out.

    `heard` is the sample up to which some decode has listened; audio after it is the backlog.
    """

    def __init__(self, handshake: Handshake, max_backlog_s: float, detector: SpeechDetector, n_mels: int) -> None:
        self.ledger = Ledger()
        self.heard = 0
        self._max_backlog_samples = int(max_backlog_s * SAMPLE_RATE_HZ)
        self._detector = detector
        self._frames = FrameDecoder(handshake.audio_format, handshake.sample_rate_hz)
        self._buffer = AudioBuffer(n_mels)
        self._endpointer = Endpointer(_endpoint_options(handshake, max_backlog_s))
        bytes_per_s = FORMATS[handshake.audio_format].bytes_per_sample * handshake.sample_rate_hz
        self._ingest_bytes = int(INGEST_S * bytes_per_s)
        self._inbox: deque[memoryview] = deque()
        self._late_samples = 0
        self._is_finished = False

    @property
    def head(self) -> Window | None:
        """The oldest window that is not done and holds audio."""
        windows = self._endpointer.windows
        return windows[0] if windows and windows[0].start < self.end_samples else None

    @property
    def end_samples(self) -> int:
        """Samples taken in so far."""
        return self._buffer.end_samples

    @property
    def has_raw(self) -> bool:
        """True while bytes wait for room in the backlog."""
        return bool(self._inbox)

    @property
    def backlog_samples(self) -> int:
        """Audio taken in that no decode has listened to and that is not settled otherwise."""
        return self.ledger.received - max(self.heard, self.ledger.settled)

    @property
    def room_samples(self) -> int:
        """What the backlog still takes; 0 or less: full."""
        return self._max_backlog_samples - self.backlog_samples

    @property
    def has_open_window(self) -> bool:
        """True if audio was received that is in a window still open."""
        windows = self._endpointer.windows
        return bool(windows) and windows[-1].end is None and windows[-1].start < self.end_samples

    def add(self, data: bytes) -> int:
        """Put raw bytes into the inbox; return how many samples they stand for."""
        self._inbox.append(memoryview(data))
        return self._frames.samples_for_bytes(len(data))

    def add_late(self, data: bytes) -> None:
        """Count raw bytes that came after an end set by us: received, and refused."""
        self._late_samples += self._frames.samples_for_bytes(len(data))

    def pump(self, *, to_the_end: bool) -> None:
        """Take in what there is room for; `to_the_end`: everything, and close the last window."""
        while self._inbox and (to_the_end or self.room_samples > 0):
            data = self._inbox.popleft()
            if len(data) > self._ingest_bytes:
                self._inbox.appendleft(data[self._ingest_bytes :])
                data = data[: self._ingest_bytes]
            self._ingest(self._frames.push(data))
        if to_the_end and not self._is_finished:
            self._is_finished = True
            self._ingest(self._frames.flush())
            self.close_window()

    def close_window(self) -> None:
        """Close an open window at the end of the audio received."""
        self._endpointer.finish(self.end_samples)

    def sentence_ends(self, heard: int) -> None:
        """What was said up to sample `heard` ends a sentence: less silence need follow, if that is all so far."""
        head = self.head
        if head is not None and heard >= head.last_speech:
            self._endpointer.sentence_ends(head.last_speech)

    def window_done(self, end: int) -> None:
        """The head window has been decoded up to its end."""
        self.ledger.settle_decoded(end)
        self._endpointer.windows.popleft()

    def settle_silence(self) -> int:
        """Account for audio outside of windows; return the sample up to which it is silent."""
        silent_until = min(self._endpointer.silent_until, self.ledger.received)
        self.ledger.settle_silent(silent_until)
        return silent_until

    def settle_rest(self) -> int:
        """No windows are left: what is not settled was silent. Returns the late samples, refused."""
        self.ledger.settle_silent(self.ledger.received)
        return self.refuse_rest()

    def refuse_rest(self) -> int:
        """Count everything not settled as refused, audio in the inbox and late audio included.

        Returns how many samples that are.
        """
        settled = self.ledger.settled
        n_bytes = sum(len(data) for data in self._inbox) + self._frames.pending_bytes
        raw = self._frames.samples_for_bytes(n_bytes)
        self._inbox.clear()
        self.ledger.received += raw + self._late_samples
        self._late_samples = 0
        self.ledger.settle_refused(self.ledger.received)
        return self.ledger.settled - settled

    def discard_before(self, sample: int) -> None:
        """Forget frames that no decode will need."""
        self._buffer.discard_before(sample)

    def window(self, start: int, end: int) -> FloatArray:
        """Log10-mel of [start, end), float32 [n_mels, k]."""
        return self._buffer.window(start, end)

    def take_warnings(self) -> tuple[str, ...]:
        """What the sender should know of its audio."""
        return self._frames.take_warnings()

    def _ingest(self, samples: FloatArray) -> None:
        if len(samples):
            self.ledger.received += len(samples)
            self._buffer.append(samples)
            for probability in self._detector.push(samples):
                self._endpointer.push(probability)


def _endpoint_options(handshake: Handshake, max_backlog_s: float) -> EndpointOptions:
    asked = handshake.vad
    default = EndpointOptions()
    threshold = default.threshold if asked.threshold is None else asked.threshold
    neg_threshold = asked.neg_threshold
    if neg_threshold is None:
        neg_threshold = max(0.01, threshold - (default.threshold - default.neg_threshold))
    silence_ms = asked.min_silence_duration_ms
    pad_ms = default.speech_pad_ms if asked.speech_pad_ms is None else asked.speech_pad_ms
    # In silence the padding is all that is kept; were it the whole backlog, no more would be read.
    pad_ms = min(pad_ms, int(max_backlog_s * 1000 / 2))
    return EndpointOptions(
        threshold=threshold,
        neg_threshold=min(neg_threshold, threshold),
        min_silence_ms=default.min_silence_ms if silence_ms is None else max(MIN_SILENCE_MS, silence_ms),
        # Whoever names a silence means it, whatever was said before.
        sentence_silence_ms=default.sentence_silence_ms if silence_ms is None else max(MIN_SILENCE_MS, silence_ms),
        speech_pad_ms=pad_ms,
        gated=handshake.use_vad,
    )
