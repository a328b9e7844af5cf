"""Runs one `Session` in virtual time: no event loop, no waiting, the same result every time.

A sender hands over chunks at its own pace and is held back while the session wants no audio; a
scripted engine decodes one window after the other and takes its time; timers fire when they are due. The
messages go through a real `Outbox`. After every input the promises of the session are checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from engine.errors import SttError
from engine.types import SAMPLE_RATE_HZ, WindowResult
from engine.vad import SpeechDetector
from realtime.audioformat import FORMATS
from realtime.events import Cancel, Close, Decode, Event, SendSegments, SendWarning
from realtime.messages import Segment
from realtime.outbox import Outbox
from realtime.protocol import Handshake
from realtime.session import MAX_WINDOW_SAMPLES, PARTIAL_INTERVAL_S, Session, SessionLimits
from tests.fakes.engine import EnergyDetector, Hearing
from tests.fakes.tones import word_number, word_text

__all__ = ["Act", "Drive", "Plan", "SentMessage", "drive"]

N_MELS = 80
MAX_STEPS = 100_000
"""Inputs in one run; more mean that the session runs in circles."""

Act = Callable[[Session], None]


@dataclass(frozen=True)
class Plan:
    """What the peer does, and when.

    Chunks of `chunk_bytes` (in turn, over and over) come `pace` times faster than real time. A stall
    `{at_s: for_s}` lets no more audio come for `for_s` seconds once `at_s` seconds of it have come.
    END_OF_AUDIO follows `end_after_s` after the last chunk (None: never). `acts` happen at a time,
    `blocked_s` are times (from, to) in which the peer reads nothing. The engine's load allows a partial
    decode every `interval_s`.
    """

    chunk_bytes: Sequence[int] = (16_384,)
    pace: float = 1.0
    stalls: Mapping[float, float] = field(default_factory=dict)
    end_after_s: float | None = 0.0
    acts: Sequence[tuple[float, Act]] = ()
    blocked_s: Sequence[tuple[float, float]] = ()
    stop_s: float = 1e6
    interval_s: float = PARTIAL_INTERVAL_S


@dataclass(frozen=True)
class SentMessage:
    """A message as the peer got it."""

    at_s: float
    body: dict[str, Any]


@dataclass
class _Job:
    event: Decode
    finish_s: float | None = None


class Drive:
    """A run and what came of it."""

    def __init__(self, session: Session, audio: bytes, hearing: Hearing, plan: Plan) -> None:
        self.session = session
        session.partial_interval_s = plan.interval_s
        self.hearing = hearing
        self.plan = plan
        self.now_s = 0.0
        self.events: list[tuple[float, Event]] = []
        self.sent: list[SentMessage] = []
        self.completed: list[Segment] = []
        self.completed_at_s: list[float] = []
        self.windows_s: list[float] = []
        self.max_buffered_s = 0.0
        self.max_backlog_s = 0.0
        self.max_buffer_bytes = 0
        self.close: Close | None = None
        self._audio = audio
        self._chunks = self._schedule(audio)
        self._acts = sorted(plan.acts, key=lambda act: act[0])
        self._outbox = Outbox(session.handshake, result_key=False)
        self._jobs: list[_Job] = []
        self._provisional: Segment | None = None

    # What came of it

    @property
    def text(self) -> str:
        """All completed text."""
        return "".join(segment.text for segment in self.completed)

    @property
    def warnings(self) -> list[str]:
        """All warnings, in order."""
        return [event.text for _, event in self.events if isinstance(event, SendWarning)]

    @property
    def said(self) -> list[int | str]:
        """The numbers of all completed tone words; other texts as they are."""
        return [_number_or_text(text) for text in self.text.split()]

    def of_kind(self, key: str) -> list[SentMessage]:
        """Messages as received that have this key."""
        return [message for message in self.sent if key in message.body]

    def seen_at_s(self, number: int) -> float:
        """When the peer first read word `number`, provisional or completed. Raises StopIteration."""
        text = word_text(number).strip()
        return next(
            message.at_s
            for message in self.of_kind("segments")
            if any(text in entry["text"].lower() for entry in message.body["segments"])
        )

    # The run

    def run(self) -> Drive:
        """Go on until the close, or until nothing can happen any more."""
        self._apply()
        for _ in range(MAX_STEPS):
            step = self._next_step()
            if step is None:
                return self
            at_s, action = step
            if at_s > self.plan.stop_s:
                self.now_s = self.plan.stop_s
                return self
            self.now_s = max(self.now_s, at_s)
            action()
            self._apply()
        raise AssertionError(f"no end after {MAX_STEPS} inputs, at {self.now_s:.3f} s")

    def _schedule(self, audio: bytes) -> list[tuple[float, bytes | None]]:
        """(due time, chunk) in order; a chunk None is END_OF_AUDIO."""
        handshake, plan = self.session.handshake, self.plan
        bytes_per_s = FORMATS[handshake.audio_format].bytes_per_sample * handshake.sample_rate_hz
        chunks: list[tuple[float, bytes | None]] = []
        stalls = sorted(plan.stalls.items())
        at, late_s, sizes = 0, 0.0, cycle(plan.chunk_bytes)
        while at < len(audio):
            end = min(len(audio), at + next(sizes))
            chunks.append((end / bytes_per_s / plan.pace + late_s, audio[at:end]))
            at = end
            while stalls and at / bytes_per_s >= stalls[0][0]:
                late_s += stalls.pop(0)[1]
        if plan.end_after_s is not None:
            chunks.append((len(audio) / bytes_per_s / plan.pace + late_s + plan.end_after_s, None))
        return chunks

    def _next_step(self) -> tuple[float, Callable[[], None]] | None:
        steps: list[tuple[float, int, Callable[[], None]]] = []
        if self._jobs:
            finish_s = self._jobs[0].finish_s
            assert finish_s is not None
            steps.append((finish_s, 0, self._finish_job))
        if self._chunks and not self.session.is_closed and (self.session.wants_audio or self.session.is_ending):
            steps.append((self._chunks[0][0], 1, self._send_chunk))
        if self._acts:
            steps.append((self._acts[0][0], 2, lambda: self._acts.pop(0)[1](self.session)))
        deadline_s = self.session.next_deadline_s()
        if deadline_s is not None:
            steps.append((deadline_s, 3, lambda: self.session.tick(self.now_s)))
        waiting = [end for begin, end in self.plan.blocked_s if begin <= self.now_s < end]
        if waiting:
            steps.append((max(waiting), 4, lambda: None))
        if not steps:
            return None
        at_s, _, action = min(steps, key=lambda step: (max(self.now_s, step[0]), step[1]))
        return at_s, action

    def _send_chunk(self) -> None:
        _, chunk = self._chunks.pop(0)
        if chunk is None:
            self.session.end_of_audio()
        else:
            self.session.receive_audio(chunk, self.now_s)

    def _finish_job(self) -> None:
        job = self._jobs.pop(0)
        outcome: WindowResult | SttError
        try:
            outcome = self.hearing.hear(job.event.job)
        except SttError as error:
            outcome = error
        self._start_next()
        self.session.result(job.event.job_id, outcome, self.now_s)

    def _start_next(self) -> None:
        if self._jobs and self._jobs[0].finish_s is None:
            self._jobs[0].finish_s = self.now_s + self.hearing.cost_s(self._jobs[0].event.job)

    # After every input

    def _apply(self) -> None:
        for event in self.session.take_events():
            assert self.close is None, f"{event} follows the close"
            self.events.append((self.now_s, event))
            self._carry_out(event)
        if not any(begin <= self.now_s < end for begin, end in self.plan.blocked_s):
            while (text := self._outbox.pop()) is not None:
                self.sent.append(SentMessage(self.now_s, json.loads(text)))
        self._check_ledger()

    def _carry_out(self, event: Event) -> None:
        if isinstance(event, Decode):
            n_frames = event.job.mel.shape[1]
            assert 0 < n_frames <= MAX_WINDOW_SAMPLES // 160 + 2, n_frames
            self.windows_s.append(n_frames / 100)
            self._jobs.append(_Job(event))
            self._start_next()
        elif isinstance(event, Cancel):
            # A decode that has begun goes on to its end; the session ignores the outcome.
            self._jobs = [job for job in self._jobs if job.event.job_id != event.job_id or job is self._jobs[0]]
        elif isinstance(event, Close):
            self.close = event
        else:
            if isinstance(event, SendSegments):
                self._check_segments(event)
            self._outbox.put(event)

    def _check_segments(self, event: SendSegments) -> None:
        assert event.completed or event.provisional
        last_end_ms = self.completed[-1].end_ms if self.completed else 0
        for segment in event.completed:
            assert segment.completed
            assert segment.text.strip()
            assert segment.start_ms >= last_end_ms, (segment, last_end_ms)
            last_end_ms = segment.end_ms
        if event.completed and self._provisional is not None:
            assert event.completed[0].start_ms == self._provisional.start_ms, (event, self._provisional)
        if event.provisional is not None:
            assert not event.provisional.completed
            assert event.provisional.start_ms >= last_end_ms
        self.completed.extend(event.completed)
        self.completed_at_s.extend([self.now_s] * len(event.completed))
        self._provisional = event.provisional

    def _check_ledger(self) -> None:
        ledger = self.session.ledger
        parts = (ledger.decoded, ledger.silent, ledger.refused, ledger.buffered)
        assert min(parts) >= 0, ledger
        assert ledger.received == sum(parts), ledger
        if self.session.is_closed:
            assert ledger.buffered == 0, ledger
        self.max_buffered_s = max(self.max_buffered_s, ledger.buffered / SAMPLE_RATE_HZ)
        self.max_backlog_s = max(self.max_backlog_s, self.session.backlog_samples / SAMPLE_RATE_HZ)
        self.max_buffer_bytes = max(self.max_buffer_bytes, self.session._intake._buffer.size_bytes)


def _number_or_text(text: str) -> int | str:
    try:
        return text if text.endswith("~") else word_number(text)
    except ValueError:
        return text


def drive(
    audio: bytes,
    plan: Plan | None = None,
    *,
    handshake: Handshake | None = None,
    hearing: Hearing | None = None,
    limits: SessionLimits | None = None,
    detector: SpeechDetector | None = None,
) -> Drive:
    """Run a session over `audio` to its end."""
    session = Session(
        handshake or Handshake("u1", language="en", wants_language=False, use_vad=True),
        limits or SessionLimits(),
        detector or EnergyDetector(),
        N_MELS,
        0.0,
    )
    return Drive(session, audio, hearing or Hearing(), plan or Plan()).run()
