"""The sans-I/O core of one live stream.

Inputs are methods, with `now_s` from a monotonic clock where time matters; outputs are events that
the caller drains with `take_events()` after every input. There is no await, no socket, no thread
and no model in here; `next_deadline_s()` tells when to call `tick` at the latest.

    audio bytes, end of audio, engine results, time  ->  Send..., Decode, Cancel, Close

Invariants: at most one partial and one final decode are under way; every sample received is, in
the end, decoded, judged silent or counted as refused (`ledger`); completed text only grows; after
`Close` nothing follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.batching import cut_context
from engine.errors import DrainingError, EngineFailedError, EngineKilledError, IdleError, SessionLimitError, SttError
from engine.types import SAMPLE_RATE_HZ, JobClass, WindowJob, WindowResult
from engine.vad import SpeechDetector
from engine.window_search import is_loop
from realtime.endpointing import Window
from realtime.events import Cancel, Close, Decode, Event, SendDisconnect, SendLanguage, SendSegments
from realtime.hypothesis import timed_words
from realtime.intake import Intake
from realtime.language import LanguageLock
from realtime.ledger import Ledger
from realtime.notices import Notices
from realtime.protocol import Handshake
from realtime.stability import TimedWord
from realtime.timers import Due, SessionLimits, Timers
from realtime.transcript import Transcript, Update

__all__ = ["Session", "SessionLimits"]

PARTIAL_INTERVAL_S = 0.5
"""New audio between two partial decodes, unless the engine's load says otherwise."""
FIRST_PARTIAL_SAMPLES = int(0.8 * SAMPLE_RATE_HZ)
"""A window gets its first partial decode at this length, padding included: less is guesswork."""
TRAIL_SAMPLES = int(0.2 * SAMPLE_RATE_HZ)
"""After speech one more partial decode hears this much silence: the last word, and whether a sentence ended."""
FRAME_EDGE_SAMPLES = 400
"""A partial window stops where the last complete mel frame does."""
MAX_WINDOW_SAMPLES = 28 * SAMPLE_RATE_HZ
"""The longest window sent to the encoder, which takes 30 s; the rest is room for rounding."""
MAX_OPEN_WINDOW_SAMPLES = 15 * SAMPLE_RATE_HZ
"""Speech without agreement is completed at this length, so that latency cannot grow."""
HOLD_BACK_SAMPLES = 2 * SAMPLE_RATE_HZ
"""Words this close to a forced cut are decoded again with what follows."""


@dataclass(frozen=True)
class _Pending:
    """A decode under way: its window in samples, and whether that is only part of a long one."""

    job_class: JobClass
    start: int
    end: int
    forced: bool = False


class Session:
    """One stream from its handshake to its close; see the module's docstring."""

    def __init__(
        self,
        handshake: Handshake,
        limits: SessionLimits,
        detector: SpeechDetector,
        n_mels: int,
        now_s: float,
        stream_id: str = "",
        context_lengths: Sequence[int] = (0,),
    ) -> None:
        """`stream_id` names the stream to the engine; unlike the peer's uid it is unique.

        `context_lengths`: to how many tokens the text before a window may be cut, as the model has it.
        """
        self.handshake = handshake
        self.partial_interval_s = PARTIAL_INTERVAL_S
        self._stream_id = stream_id
        self._context_lengths = context_lengths
        self._limits = limits
        self._intake = Intake(handshake, limits.max_backlog_s, detector, n_mels)
        self._transcript = Transcript(word_timestamps=handshake.word_timestamps)
        self._language = LanguageLock(handshake.language)
        self._events: list[Event] = []
        self._jobs: dict[int, _Pending] = {}
        self._last_job_id = 0
        self._window: Window | None = None
        self._ending: SttError | None = None
        self._is_ending = False
        self._is_closed = False
        self._warned_text = False
        self._shown_until = 0
        self._timers = Timers(limits, now_s)
        self._notices = Notices(handshake.warnings, held=handshake.wants_language)
        if handshake.language is not None and handshake.wants_language:
            self._events.append(SendLanguage(handshake.language, 1.0))
        self._events.extend(self._notices.take())

    # Inputs

    def receive_audio(self, data: bytes, now_s: float) -> None:
        """Take one binary message. Call only while `wants_audio`, or after the end."""
        if self._is_closed:
            return
        if self._is_ending:
            if self._ending is not None:
                self._intake.add_late(data)
            return
        self._timers.received(now_s, audio_s=self._intake.add(data) / SAMPLE_RATE_HZ)
        self._pump()

    def receive_text(self, now_s: float) -> None:
        """Take a text message that is not END_OF_AUDIO: the protocol has none after the handshake."""
        self._timers.received(now_s)
        if not (self._warned_text or self._is_ending or self._is_closed):
            self._warned_text = True
            self._warn("text messages after the handshake are ignored, except END_OF_AUDIO")

    def end_of_audio(self) -> None:
        """The peer has sent all: decode what is left, then close with 1000. Idempotent."""
        self._end(None)

    def drain(self) -> None:
        """The server shuts down: decode what is left, then close with 1001."""
        self._end(_draining())

    def refuse(self, reason: SttError) -> None:
        """The peer sent what ends a stream: decode what came before, then close with the reason's code."""
        self._end(reason)

    def result(self, job_id: int, outcome: WindowResult | SttError, now_s: float) -> None:
        """Take the outcome of a `Decode`; ids cancelled meanwhile are ignored."""
        pending = self._jobs.pop(job_id, None)
        if pending is None or self._is_closed:
            return
        if not self.wants_audio:
            self._timers.not_reading(now_s)
        self._intake.heard = max(self._intake.heard, pending.end)
        if isinstance(outcome, SttError):
            self._failed(pending, outcome)
        else:
            self._decoded(pending, outcome)
        self._pump()

    def tick(self, now_s: float) -> None:
        """Let time pass: starvation, idleness, the session limit."""
        if self._is_closed or self._is_ending:
            return
        due = self._timers.due(now_s, reading=self.wants_audio, starving=self._intake.has_open_window)
        if due is Due.OVERTIME:
            self._end(SessionLimitError(f"the session limit of {self._limits.max_connection_time_s:g} s is over"))
        elif due is Due.IDLE:
            self._end(IdleError(f"no bytes for {self._limits.idle_timeout_s:g} s"))
        elif due is Due.STARVED:
            self._intake.close_window()
            self._next_job()

    def abort(self) -> None:
        """Time is up while draining: complete what was last shown, tell what was not decoded, close."""
        if self._is_closed:
            return
        # Even a peer that has sent all must learn that its end is missing.
        self._ending = self._ending or _draining()
        self._cancel_jobs()
        self._publish(self._transcript.give_up())
        self.ledger.settle_decoded(min(self._shown_until, self.ledger.received))
        self._finish(self._intake.refuse_rest())

    def disconnected(self) -> None:
        """The peer is gone: nothing can be delivered any more."""
        if self._is_closed:
            return
        self._cancel_jobs()
        self._intake.refuse_rest()
        self._is_closed = True

    # Outputs

    def take_events(self) -> list[Event]:
        """Hand over the events since the last call."""
        events, self._events = self._events, []
        return events

    def next_deadline_s(self) -> float | None:
        """When `tick` has something to do, if nothing else happens; None: never."""
        if self._is_closed or self._is_ending:
            return None
        return self._timers.next_s(starving=self._intake.has_open_window)

    @property
    def ledger(self) -> Ledger:
        """Where the samples went."""
        return self._intake.ledger

    @property
    def backlog_samples(self) -> int:
        """Audio taken in that waits for its first decode."""
        return self._intake.backlog_samples

    @property
    def wants_audio(self) -> bool:
        """False while the backlog is full or the stream is ending: stop reading the socket."""
        return not (self._is_ending or self._is_closed or self._intake.has_raw or self._intake.room_samples <= 0)

    @property
    def is_ending(self) -> bool:
        """True once no more audio is taken."""
        return self._is_ending or self._is_closed

    @property
    def is_closed(self) -> bool:
        """True once no further event will come."""
        return self._is_closed

    # Decoding

    def _pump(self) -> None:
        self._take_in()
        # Silence is settled only by now, and may have made room for bytes that no result would fetch.
        while self._intake.has_raw and self._intake.room_samples > 0:
            self._take_in()

    def _take_in(self) -> None:
        self._intake.pump(to_the_end=self._is_ending)
        for text in self._intake.take_warnings():
            self._warn(text)
        self._next_job()

    def _next_job(self) -> None:
        if self._is_closed:
            return
        self._settle()
        while (head := self._intake.head) and head.end is not None and head.end <= self._transcript.decode_from:
            # A forced decode has heard all of it before its end was known.
            self._cancel_jobs()
            self._publish(self._transcript.pass_over())
            self._intake.window_done(head.end)
            self._settle()
        if head is not None:
            self._decode_head(head)
        elif self._is_ending and not self._jobs:
            self._finish(self._intake.settle_rest())

    def _settle(self) -> None:
        self._transcript.silence(self._intake.settle_silence())
        self._intake.discard_before(min(self.ledger.settled, self._transcript.decode_from))

    def _decode_head(self, head: Window) -> None:
        if head is not self._window:
            self._window = head
            self._transcript.begin_window(head.start)
        start = self._transcript.decode_from
        if head.end is not None:
            self._decode_final(start, head.end)
        elif not self._jobs:
            self._decode_partial(head, start)

    def _decode_final(self, start: int, end: int) -> None:
        if any(job.job_class is JobClass.FINAL for job in self._jobs.values()):
            return
        self._cancel_jobs()
        if end - start > MAX_WINDOW_SAMPLES:
            self._submit(_Pending(JobClass.FINAL, start, start + MAX_WINDOW_SAMPLES, forced=True))
        else:
            self._submit(_Pending(JobClass.FINAL, start, end))

    def _decode_partial(self, head: Window, start: int) -> None:
        end = self._intake.end_samples - FRAME_EDGE_SAMPLES
        if end - start >= MAX_OPEN_WINDOW_SAMPLES:
            self._submit(_Pending(JobClass.FINAL, start, min(end, start + MAX_WINDOW_SAMPLES), forced=True))
        elif self._is_worth_partial(head, end) or (self._intake.room_samples <= 0 and end > start):
            # With a full backlog nothing more is read, so only a decode can move things on.
            self._submit(_Pending(JobClass.PARTIAL, start, end))

    def _is_worth_partial(self, head: Window, end: int) -> bool:
        if end - head.start < FIRST_PARTIAL_SAMPLES:
            return False
        if head.last_speech and self._intake.heard < head.last_speech + TRAIL_SAMPLES <= end:
            return True
        if head.last_speech <= self._intake.heard:
            return False
        return end - self._intake.heard >= self.partial_interval_s * SAMPLE_RATE_HZ

    def _submit(self, pending: _Pending) -> None:
        self._last_job_id += 1
        self._jobs[self._last_job_id] = pending
        handshake = self.handshake
        job = WindowJob(
            stream=self._stream_id,
            job_class=pending.job_class,
            mel=self._intake.window(pending.start, pending.end),
            language=self._language.code,
            languages=handshake.languages,
            task=handshake.task,
            context=cut_context(self._transcript.context, self._context_lengths),
            prompt=handshake.initial_prompt,
            hotwords=handshake.hotwords,
        )
        self._events.append(Decode(self._last_job_id, job))

    def _cancel_jobs(self) -> None:
        self._events.extend(Cancel(job_id) for job_id in self._jobs)
        self._jobs.clear()

    # Results

    def _decoded(self, pending: _Pending, result: WindowResult) -> None:
        n_speech = 0 if self._window is None else self._window.speech
        words = timed_words(result, pending.start, pending.end, self.handshake.no_speech_thresh, n_speech)
        is_final = pending.job_class is JobClass.FINAL
        window_s = (pending.end - pending.start) / SAMPLE_RATE_HZ
        found = self._language.observe(result, window_s, has_words=bool(words), final=is_final)
        if found is not None:
            self._events.append(SendLanguage(*found))
        if is_loop(result):
            self._transcript.forget_context()
            if not is_final:
                return  # the next partial will know better; what is kept is tried again by the engine
        if self._language.code is not None or is_final:
            self._shown_until = max(self._shown_until, pending.end)
            self._publish(self._take_words(pending, words))

    def _take_words(self, pending: _Pending, words: list[TimedWord]) -> Update:
        if pending.job_class is JobClass.FINAL and not pending.forced:
            is_cut = self._window is not None and self._window.is_cut
            update = self._transcript.final(words, pending.end, goes_on=is_cut)
            self._intake.window_done(pending.end)
            self._window = None
            return update
        if pending.forced:
            update = self._transcript.forced(words, pending.end - HOLD_BACK_SAMPLES, pending.end)
            # What was held back has to be heard again.
            self._intake.heard = min(self._intake.heard, pending.end - HOLD_BACK_SAMPLES)
        else:
            update = self._transcript.partial(words, pending.end)
            if self._transcript.at_sentence_end:
                self._intake.sentence_ends(pending.end - TRAIL_SAMPLES)
        self.ledger.settle_decoded(min(self._transcript.decode_from, self.ledger.received))
        return update

    def _failed(self, pending: _Pending, error: SttError) -> None:
        """The engine cannot decode this window. A partial is tried again with more audio, unless it is deadly."""
        if pending.job_class is JobClass.PARTIAL and not isinstance(error, EngineKilledError):
            return
        self._publish(self._transcript.give_up())
        start_s, end_s = pending.start / SAMPLE_RATE_HZ, pending.end / SAMPLE_RATE_HZ
        self._warn(f"{EngineFailedError.code}: the audio from {start_s:.3f} s to {end_s:.3f} s could not be decoded")
        self.ledger.settle_refused(pending.end)
        self._transcript.final([], pending.end)
        if pending.job_class is JobClass.FINAL and not pending.forced:
            self._intake.window_done(pending.end)
            self._window = None
        if isinstance(error, EngineKilledError):
            # Whatever of this stream is deadly, others share the engine.
            self._end(error)

    # Messages out

    def _publish(self, update: Update) -> None:
        if not update.completed and update.provisional is None:
            return
        self._events.append(SendSegments(update.completed, update.provisional))
        self._notices.release()
        self._events.extend(self._notices.take())

    def _warn(self, text: str) -> None:
        self._notices.add(text)
        self._events.extend(self._notices.take())

    # The end

    def _end(self, reason: SttError | None) -> None:
        if self._is_ending or self._is_closed:
            return
        self._ending = reason
        self._is_ending = True
        self._pump()

    def _finish(self, n_refused: int) -> None:
        """Close; the last `n_refused` samples came to nothing."""
        reason = self._ending
        if reason is not None and n_refused:
            decoded_s = (self.ledger.received - n_refused) / SAMPLE_RATE_HZ
            refused_s = n_refused / SAMPLE_RATE_HZ
            self._warn(f"{reason.code}: decoded up to {decoded_s:.3f} s; {refused_s:.3f} s of audio were refused")
        self._events.extend(self._notices.take(at_the_end=True))
        if isinstance(reason, SessionLimitError):
            self._events.append(SendDisconnect())
        self._is_closed = True
        self._events.append(Close(reason.close_code, str(reason)) if reason else Close(1000, ""))


def _draining() -> DrainingError:
    return DrainingError("the server is shutting down; reconnect later or elsewhere")
